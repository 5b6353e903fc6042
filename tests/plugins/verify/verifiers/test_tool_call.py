"""`tool_call`: the tool exists, its arguments fit, the policy is kept."""

import json

import pytest

from predawn.plugins import Exchange
from predawn.plugins.verify.verifiers import create
from predawn.proxy.extensions import Step

PAY = {
    "type": "object",
    "properties": {"to": {"type": "string"}, "amount": {"type": "number"}, "unit": {"enum": ["usd", "eur"]}},
    "required": ["to", "amount"],
}
TOOLS = [
    {"type": "function", "function": {"name": "pay", "parameters": PAY}},
    {"type": "function", "function": {"name": "list_files"}},
]
RULES = [
    {"tool": "pay", "argument": "amount", "maximum": 100, "why": "No more than 100."},
    {"tool": "*", "argument": "to", "denied": ["eve"]},
    {"tool": "pay", "argument": "to", "pattern": "[a-z]+"},
    {"tool": "list_files", "max_calls": 1},
    {"tool": "list_files", "argument": "paths.*", "allowed": ["a", "b"]},
]


async def told(name, arguments, exchange=None, options=None, call_id="c1", tools=TOOLS):
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": text}}
    exchange = exchange or Exchange(json.dumps({"tools": tools}).encode())
    verifier = create("tool_call", options or {})
    return await verifier.verify(
        Step(text, "tool_call", "tool_call", 0, len(text), tool_call=call, is_last=True), exchange
    )


@pytest.mark.parametrize(
    "arguments", [{"to": "bob", "amount": 5}, {"amount": 1.5, "to": "x", "unit": "usd", "more": 1}]
)
async def test_a_call_that_fits_passes(arguments):
    assert (await told("pay", arguments)).outcome == "pass"


@pytest.mark.parametrize("shell", [{"name": "shell"}, {"custom": {"name": "shell"}}])
async def test_a_tool_that_takes_any_text_is_the_requests_word_not_the_calls(shell):
    tools = [*TOOLS, {"type": "custom", **shell}]
    exchange = Exchange(json.dumps({"tools": tools}).encode())
    said = {}
    for name in ("shell", "pay", "rm"):
        call = {"id": name, "type": "custom", "function": {"name": name, "arguments": "ls -l"}}
        step = Step("ls -l", "tool_call", "tool_call", 0, 5, tool_call=call, is_last=True)
        said[name] = (await create("tool_call", {}).verify(step, exchange)).outcome

    assert said == {"shell": "pass", "pay": "violation", "rm": "violation"}


async def test_a_tool_without_parameters_takes_none():
    assert (await told("list_files", "")).outcome == "pass"


@pytest.mark.parametrize(
    ("name", "arguments", "word"),
    [
        ("pax", {}, "Did you mean pay?"),
        ("", {}, "no tool"),
        ("pay", {"to": "bob"}, "lacks 'amount'"),
        ("pay", {"to": "bob", "amount": "5"}, "must be number"),
        ("pay", {"to": "bob", "amount": 5, "unit": "gbp"}, "'usd', 'eur'"),
        ("pay", '{"to": "bob"', "no JSON object"),
        ("pay", "[1]", "must be object"),
        ("pay", "=to", "no JSON object"),
    ],
)
async def test_a_call_that_does_not_fit_is_told_in_words(name, arguments, word):
    verdict = await told(name, arguments)

    assert verdict.outcome == "violation"
    assert word in verdict.feedback


async def test_no_tool_can_be_called_where_none_was_offered():
    assert "No tool was offered" in (await told("pay", {}, tools=[])).feedback


@pytest.mark.parametrize(
    ("name", "arguments", "outcome"),
    [
        ("pay", {"to": "bob", "amount": 100}, "pass"),
        ("pay", {"to": "bob", "amount": 101}, "violation"),
        ("pay", {"to": "eve", "amount": 1}, "violation"),
        ("pay", {"to": "BOB", "amount": 1}, "violation"),
        ("list_files", {"paths": ["a", "b"]}, "pass"),
        ("list_files", {"paths": ["a", "c"]}, "violation"),
    ],
)
async def test_a_policy_is_kept(name, arguments, outcome):
    assert (await told(name, arguments, options={"policy": RULES})).outcome == outcome


async def test_a_rule_says_why():
    assert "No more than 100." == (await told("pay", {"to": "bob", "amount": 500}, options={"policy": RULES})).feedback


async def test_calls_of_a_tool_are_counted_in_one_answer():
    exchange = Exchange(json.dumps({"tools": TOOLS}).encode())
    outcomes = [
        (await told("list_files", {}, exchange, {"policy": RULES}, call_id)).outcome for call_id in ("a", "b", "a")
    ]

    assert outcomes == ["pass", "violation", "pass"]


async def test_arguments_that_are_not_declared_can_be_refused():
    options = {"unknown_arguments": "refuse"}

    assert (await told("pay", {"to": "b", "amount": 1, "x": 1}, options=options)).outcome == "violation"


def test_a_rule_that_cannot_be_read_stops_the_start():
    with pytest.raises(ValueError, match="no regular expression|not a regular expression"):
        create("tool_call", {"policy": [{"tool": "a", "argument": "b", "pattern": "("}]})


@pytest.mark.parametrize(("arguments", "outcome"), [('{"a": 1}', "pass"), ('{"a": 1, "b": 2}', "violation")])
async def test_arguments_that_a_reference_declares_are_known(arguments, outcome):
    schema = {"$ref": "#/$defs/args", "$defs": {"args": {"type": "object", "properties": {"a": {"type": "integer"}}}}}
    request = {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]}
    call = {"function": {"name": "f", "arguments": arguments}}
    step = Step("", "tool_call", "own", 0, 0, is_last=True, tool_call=call)

    verdict = await create("tool_call", {"unknown_arguments": "refuse"}).verify(
        step, Exchange(json.dumps(request).encode())
    )

    assert verdict.outcome == outcome
