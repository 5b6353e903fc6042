"""`json_schema`: a violation at the first wrong token, the same truth as the whole schema has."""

import json
from random import Random

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.benchmarks.verify.plants.structured import instance
from tests.benchmarks.verify.plants.structured import schema as drawn_schema
from tests.benchmarks.verify.reading import chunks_of, steps_of
from tests.plugins.verify.verifiers.reading import asking_for, read, violations

from predawn.plugins import Exchange
from predawn.plugins.verify.verifiers import create
from predawn.plugins.verify.verifiers.json_schema import json_token
from predawn.plugins.verify.verifiers.schema_machine import is_followed

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 10},
        "age": {"type": "integer", "minimum": 0},
        "kind": {"enum": ["cat", "dog"]},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        "next": {"anyOf": [{"type": "null"}, {"$ref": "#"}]},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("text", "until"),
    [
        ('{"nam": 1}', '{"nam":'),
        ('{"name": 5, "age": 1}', '{"name": 5,'),
        ('{"kind": "cow", "age": 1}', '{"kind": "cow",'),
        ('{"age": -1, "name": "x"}', '{"age": -1,'),
        ('{"tags": ["a", "b", "c"]}', '{"tags": ["a", "b", "c"]'),
        ('{"name": "x"}', '{"name": "x"}'),
        ('{"name": "x", "age": 1, "next": {"name": "y"}}', '{"name": "x", "age": 1, "next": {"name": "y"}'),
        ("Sure, here: {}", "S"),
        ('```json\n{"name": "x", "age": 1}\n```', "`"),
        ('{"name": "x", "age": 1} Done.', '{"name": "x", "age": 1} D'),
    ],
)
async def test_the_violation_is_at_the_first_wrong_token(text, until):
    verifier = create("json_schema")
    verdicts = await read(verifier, text, chunks=list(text), request=asking_for(PERSON))
    steps = list(steps_of(verifier.boundary, list(text)))
    first = next(index for index, verdict in enumerate(verdicts) if verdict.outcome == "violation")

    assert until == text[: steps[first].end]


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 9))
@settings(max_examples=60)
async def test_following_a_schema_finds_what_the_whole_schema_finds(seed, other, size):
    random = Random(seed)
    schema = drawn_schema(random)
    value = instance(Random(other), drawn_schema(Random(other)) if other % 2 else schema)
    expected = jsonschema.Draft202012Validator(schema).is_valid(value)

    found = await violations(
        create("json_schema"),
        json.dumps(value),
        request=asking_for(schema),
        chunks=chunks_of(json.dumps(value), random, size),
    )

    assert expected == (not found)


@given(st.integers(0, 10**6), st.lists(st.integers(1, 400), max_size=6))
@settings(max_examples=60)
async def test_cuts_anywhere_give_the_same_verdict(seed, cuts):
    random = Random(seed)
    schema = drawn_schema(random)
    text = json.dumps(instance(random, schema))
    if seed % 2:
        text = text.replace('"', "'", 1) if seed % 3 else text[:-1]
    ends = sorted({min(cut, len(text)) for cut in cuts} | {len(text)})
    chunks = [text[a:b] for a, b in zip([0, *ends], ends, strict=False) if b > a]
    whole = await violations(create("json_schema"), text, request=asking_for(schema))

    assert bool(whole) == bool(await violations(create("json_schema"), text, request=asking_for(schema), chunks=chunks))


async def test_steps_may_be_looked_at_in_any_order():
    text = '{"name": "x", "age": "1"}'
    verifier, exchange = create("json_schema"), Exchange(json.dumps(asking_for(PERSON)).encode())
    steps = list(steps_of(json_token, list(text)))
    outcomes = {step.index: (await verifier.verify(step, exchange)).outcome for step in reversed(steps)}

    assert [outcomes[step.index] for step in steps] == ["pass"] * 4 + ["violation"]


async def test_an_answer_that_was_put_right_is_read_again():
    verifier, exchange = create("json_schema"), Exchange(json.dumps(asking_for(PERSON)).encode())
    for text in ('{"name": 5', '{"name": "x", "age": 3}'):
        verdicts = await read(verifier, text, chunks=list(text), exchange=exchange)

    assert {verdict.outcome for verdict in verdicts} == {"pass"}


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": "^(a+)+$", "type": "string"},
        {"not": {"type": "null"}},
        {"uniqueItems": True},
        {"if": {"type": "string"}, "then": {"maxLength": 1}},
        {"$ref": "https://example.com/other"},
        {"type": 5},
        {"enum": [{"a": 1}]},
        {"anyOf": [{"$dynamicRef": "#a"}]},
    ],
)
def test_keywords_that_cannot_be_followed_are_left_to_the_whole_schema(schema):
    assert not is_followed(schema)


@pytest.mark.parametrize(
    ("schema", "text", "outcome"),
    [
        ({"pattern": "^b", "type": "string"}, '"a"', "violation"),
        ({"not": {"type": "null"}}, "null", "violation"),
        ({"uniqueItems": True}, "[1, 1.0]", "violation"),
        ({"uniqueItems": True}, "[1, true]", "pass"),
        ({"multipleOf": 0.1, "not": False}, "0.3", "pass"),
        ({"$ref": "https://example.com/other"}, "1", "unsure"),
        ({"type": 5}, "1", "unsure"),
        ({"oneOf": [{"type": "integer"}, {"minimum": 5}]}, "7", "violation"),
    ],
)
async def test_the_whole_schema_has_the_last_word(schema, text, outcome):
    assert (await read(create("json_schema"), text, request=asking_for(schema)))[-1].outcome == outcome


@pytest.mark.parametrize(
    ("request_", "text", "count"),
    [
        ({"response_format": {"type": "json_object"}}, "[1]", 1),
        ({"response_format": {"type": "json_object"}}, '{"a": 1}', 0),
        ({"response_format": {"type": "text"}}, "hello", 0),
        ({"text": {"format": {"type": "json_schema", "schema": {"type": "array"}}}}, "{}", 1),
        ({}, "hello", 0),
    ],
)
async def test_the_schema_is_what_the_request_asks_for(request_, text, count):
    assert count == len(await violations(create("json_schema"), text, request=request_))


async def test_a_schema_of_the_settings_is_for_requests_without_one():
    verifier = create("json_schema", {"json_schema": {"type": "array"}})

    assert len(await violations(verifier, "{}")) == 1
    assert await violations(verifier, "{}", request=asking_for({"type": "object"})) == []
