"""An answer is served only where nothing could have changed it."""

from dataclasses import replace

import pytest

from predawn.plugins.sleep.contexts import Anticipated
from predawn.plugins.sleep.matches import Match
from predawn.plugins.sleep.prefix import split_question
from predawn.plugins.sleep.serving import NO_CONDITIONS, conditions_of, may_be_served

FOUND = Anticipated(
    id="a",
    context_id="ctx",
    version=2,
    question="Why?",
    normalised="why",
    answer="Because.",
    verified=True,
    model="m",
    conditions=NO_CONDITIONS,
)
MATCH = Match("t", "ctx", 2, 1, 100)
PLAIN = {"model": "m", "messages": []}


def serves(found=FOUND, match=MATCH, request=PLAIN, model="m", messages=2):
    return may_be_served(found, match, request, model, messages)


def test_the_very_question_is_served():
    assert serves()


@pytest.mark.parametrize(
    "delivery",
    [
        {"stream": True, "stream_options": {"include_usage": True}},
        {"metadata": {"a": "b"}},
        {"n": 1},
        {"temperature": None},
        {"max_tokens": 8},
    ],
)
def test_how_it_is_delivered_makes_no_difference(delivery):
    assert serves(request={**PLAIN, **delivery})


@pytest.mark.parametrize(
    "other",
    [
        {"temperature": 0},
        {"top_p": 0.9},
        {"seed": 1},
        {"n": 2},
        {"stop": ["."]},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"tool_choice": "none"},
        {"response_format": {"type": "json_object"}},
        {"user": "bob"},
        {"logprobs": True},
        {"reasoning_effort": "high"},
        {"max_tokens": 7},
        {"max_completion_tokens": 1},
        {"max_tokens": "8"},
    ],
)
def test_what_may_change_an_answer_does(other):
    assert not serves(request={**PLAIN, **other})


@pytest.mark.parametrize(
    "changed",
    [{"verified": False}, {"version": 1}, {"context_id": "other"}, {"model": "n"}, {"conditions": ""}],
)
def test_an_answer_to_something_else_is_not_served(changed):
    assert not serves(replace(FOUND, **changed))


def test_what_was_said_between_context_and_question_counts():
    assert not serves(messages=3)
    assert not serves(match=replace(MATCH, at=0))


def test_a_message_that_was_split_may_be_served():
    said = [{"role": "user", "content": "A text. Why?"}]
    split = split_question(said, "last_sentence")

    assert serves(match=replace(MATCH, split=split), messages=1)


def test_conditions_do_not_depend_on_the_order_of_members():
    assert conditions_of({"a": 1, "b": {"c": 1, "d": 2}}) == conditions_of({"b": {"d": 2, "c": 1}, "a": 1})
