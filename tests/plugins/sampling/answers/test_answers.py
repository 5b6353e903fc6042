"""Options, yes and no, JSON, tool calls, code, words; and which of them a request is read as."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.plugins.sampling.answers import BUILT_IN, reader
from predawn.plugins.sampling.answers.asked import asked_of
from predawn.proxy.extensions import Extracted

OPTIONS = "What helps?\nA) A good way\nB) A different way\nC) Something else"


def asking(question: str, **members: Any) -> dict[str, Any]:
    return {"messages": [{"role": "system", "content": "A) x\nB) y"}, {"role": "user", "content": question}], **members}


def read(text: str, question: str = "", wanted: str = "auto", **members: Any) -> Extracted | None:
    return reader(asking(question, **members), wanted)(text, ())


def key(text: str, question: str = "", wanted: str = "auto", **members: Any) -> Any:
    found = read(text, question, wanted, **members)
    return found.key if found is not None else None


# -- options


def test_a_good_way_and_a_different_way_are_two_options() -> None:
    assert key("A good way", OPTIONS) == ("option", "A")
    assert key("A different way", OPTIONS) == ("option", "B")


@pytest.mark.parametrize(
    "text",
    [
        "B",
        "b",
        "(B)",
        "B.",
        "**B**",
        "B) A different way",
        "The answer is B.",
        "The answer is (B).",
        "**Answer: B**",
        "\\boxed{B}",
        "\\boxed{\\text{B}}",
        "Option B is correct.",
        "The answer is not A. The answer is B",
        "A is wrong since it is good.\nThe answer is (B) A different way",
        "I looked at all of them.\n\nB",
        "The answer is a different way.",
    ],
)
def test_option_b_is_read(text: str) -> None:
    assert key(text, OPTIONS) == ("option", "B")


@pytest.mark.parametrize(
    "text",
    [
        "A friend told me that nothing helps.",
        "A good idea would be a different way of thinking.",
        "D",
        "The answer is unclear.",
        "Both A and B have their merits, I cannot choose.",
        "",
        "Because of that, I would say it depends.",
    ],
)
def test_a_letter_that_begins_a_sentence_is_no_option(text: str) -> None:
    assert key(text, OPTIONS) is None


def test_several_options_are_one_answer_in_any_order() -> None:
    assert key("The answer is A and C", OPTIONS) == key("C, A", OPTIONS) == ("options", ("A", "C"))


def test_options_are_found_in_lines_and_in_brackets() -> None:
    assert asked_of(asking(OPTIONS)).options["B"] == "A different way"
    assert asked_of(asking("Which? (A) red (B) blue (C) green")).options == {"A": "red", "B": "blue", "C": "green"}
    assert asked_of(asking("A. Smith asked why.")).options == {}


# -- yes and no


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes.", True),
        ("**Yes**, it is.", True),
        ("True", True),
        ("No, it is not.", False),
        ("The answer is no.", False),
        ("\\boxed{\\text{No}}", False),
        ("It floats.\nYes", True),
        ("No doubt it does", None),
        ("Yes and no.", None),
        ("Yes, at first.\nNo", None),
        ("Noon is early.", None),
        ("It depends.", None),
    ],
)
def test_yes_and_no_are_read(text: str, expected: bool | None) -> None:
    assert key(text, "Does it float? Answer yes or no.") == (("yes_no", expected) if expected is not None else None)


# -- JSON

JSON_FORM = {"response_format": {"type": "json_object"}}
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def shuffled(value: Any, chance: random.Random) -> Any:
    if isinstance(value, dict):
        return {name: shuffled(value[name], chance) for name in chance.sample(list(value), len(value))}
    return [shuffled(member, chance) for member in value] if isinstance(value, list) else value


@given(values, st.randoms())
def test_the_order_of_members_makes_no_difference(value: Any, chance: random.Random) -> None:
    one, other = json.dumps(value), json.dumps(shuffled(value, chance), indent=2, ensure_ascii=False)

    assert key(one, **JSON_FORM) == key(f"```json\n{other}\n```", **JSON_FORM) is not None


@given(values, values)
def test_other_values_have_other_keys(one: Any, other: Any) -> None:
    equal = _typed(one) == _typed(other)

    assert (key(json.dumps(one), **JSON_FORM) == key(json.dumps(other), **JSON_FORM)) == equal


def _typed(value: Any) -> Any:
    """`True` is not 1 in JSON, and 1.0 is."""
    if isinstance(value, dict):
        return {name: _typed(member) for name, member in value.items()}
    if isinstance(value, list):
        return ["list", *map(_typed, value)]
    return (type(value) in (int, float), value)


@pytest.mark.parametrize(("one", "other"), [("1.50", "15e-1"), ("0", "-0.0"), ("100", "1E2"), ('"é"', '"\\u00e9"')])
def test_json_is_compared_by_value(one: str, other: str) -> None:
    assert key(one, **JSON_FORM) == key(other, **JSON_FORM)


@pytest.mark.parametrize("text", ['{"a": 1', '{"a": 1, "a": 2}', "NaN", "Here: {}", "", "[" * 1000 + "]" * 1000])
def test_what_is_not_one_value_is_no_json(text: str) -> None:
    assert key(text, **JSON_FORM) is None


def test_the_order_of_a_list_counts() -> None:
    assert key("[1, 2]", **JSON_FORM) != key("[2, 1]", **JSON_FORM)


# -- tool calls


def call(name: str, arguments: Any, ident: str = "call_1") -> dict[str, Any]:
    return {"id": ident, "type": "function", "function": {"name": name, "arguments": arguments}}


def called(*calls: dict[str, Any]) -> Any:
    found = reader(asking("What is the weather? A) x\nB) y"), "auto")("Let me see: 42", calls)
    return found.key if found is not None else None


def test_calls_are_compared_by_name_and_arguments() -> None:
    one = called(call("weather", '{"city": "Rome", "days": 2}'), call("time", ""))
    other = called(call("time", "{}", "x"), call("weather", ' {"days":2.0,"city":"Rome"}', "y"))

    assert one == other is not None
    assert one != called(call("weather", '{"city": "Rom", "days": 2}'), call("time", ""))
    assert one != called(call("weather", '{"city": "Rome", "days": 2}'))


@pytest.mark.parametrize("arguments", ['{"city": "Rome"', "[" * 5000, '{"a":1,"a":2}', 7])
def test_a_call_that_cannot_be_read_has_no_vote(arguments: Any) -> None:
    assert called(call("weather", arguments)) is None


def test_calls_in_the_shapes_of_other_apis_are_the_same_calls() -> None:
    flat = called({"type": "function_call", "name": "weather", "arguments": '{"city":"Rome"}'})

    assert flat == called(call("weather", '{"city": "Rome"}'))


# -- code

PROGRAM = 'def f(x):\n    """Doubles."""\n    return x * 2\n'


def test_code_is_compared_by_its_syntax() -> None:
    other = "Here it is:\n```python\n# doubles\ndef f( x ):\n\n    return (x*2)  # done\n```\nDone."

    assert key(f"```python\n{PROGRAM}```", wanted="code") == key(other, wanted="code") is not None
    assert key(PROGRAM, wanted="code") == key(other, wanted="code")
    assert key(PROGRAM.replace("2", "3"), wanted="code") != key(PROGRAM, wanted="code")


@pytest.mark.parametrize("text", ["I cannot.", "hello", "```python\ndef f(:\n```", "```py\na\n```\n```py\nb\n```", ""])
def test_what_is_no_single_program_says_nothing(text: str) -> None:
    assert key(text, wanted="code") is None


def test_code_of_other_languages_is_compared_by_its_words() -> None:
    one, other = "```js\nlet a = 1;\n```", "```js\nlet a  =  1;\n\n```"

    assert key(one, wanted="code") == key(other, wanted="code") != key("```js\nlet a = 2;\n```", wanted="code")


# -- what a request is read as


@pytest.mark.parametrize(
    ("question", "shape"),
    [
        ("How many apples does Bob have?", "number"),
        ("What is 3 + 4?", "number"),
        ("Compute the integral.", "number"),
        ("Is it so? Answer true or false.", "yes_no"),
        (OPTIONS, "option"),
        ("Write a Python function that doubles.", "code"),
        ("Tell me about Rome.", "any"),
        ("Can you write a poem?", "any"),
    ],
)
def test_a_question_has_its_shape(question: str, shape: str) -> None:
    assert asked_of(asking(question)).shape == shape


def test_only_the_last_words_of_the_user_are_the_question() -> None:
    request = {
        "messages": [
            {"role": "user", "content": OPTIONS},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        ]
    }

    assert asked_of(request).shape == "any"


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"messages": None},
        {"messages": [1, {"role": "user"}]},
        {"prompt": [1, 2]},
        {"input": [{"role": "user", "content": 3}]},
    ],
)
def test_requests_of_any_shape_are_taken(request_: dict[str, Any]) -> None:
    assert asked_of(request_).shape == "any"


def test_a_question_without_shape_is_read_by_the_answer() -> None:
    assert key("Paris.") == key("**Paris**") == key("The answer is Paris.") == ("words", "paris")
    assert key("42") == key("The answer is 42.")
    assert key("Yes") == ("yes_no", True)
    assert key('{"a": 1}') == key('{ "a":1 }')
    assert key("First.\nSecond.") is None
    assert key("x" * 200) is None


def test_boxed_words_and_formulas_are_compared_as_they_stand() -> None:
    assert key("\\boxed{\\sqrt{2}}", wanted="boxed") == key("So \\boxed{ \\sqrt{2} }.", wanted="boxed") is not None
    assert key("\\boxed{0.5}", wanted="boxed") == key("\\boxed{\\frac{1}{2}}", wanted="boxed")
    assert key("42", wanted="boxed") is None


class Shout:
    name = "number"

    def extract(self, text: str) -> Extracted | None:
        return Extracted(text.upper(), text)


def test_what_is_registered_goes_before_what_is_built_in() -> None:
    found = reader(asking(""), "number", {"number": Shout()})("hi", ())

    assert found == Extracted("HI", "hi")


def test_unknown_extractors_are_refused() -> None:
    with pytest.raises(KeyError):
        reader(asking(""), "nonsense")


@pytest.mark.parametrize("name", BUILT_IN)
def test_extractors_know_their_names(name: str) -> None:
    assert BUILT_IN[name](asked_of({})).name == name
