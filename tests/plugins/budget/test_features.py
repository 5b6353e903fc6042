"""Features of any request, however odd, in little time."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.plugins.budget.cases import EASY, HARD, state

from predawn.plugins.budget.features import NAMES, SKETCH, read

JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["role", "content", "text", "type"]), inner)
    ),
    max_leaves=12,
)


def look(text, **more):
    return read("chat", {"messages": [{"role": "user", "content": text}], **more}, tenant="t")


@given(
    st.sampled_from(["chat", "messages", "responses", "completions"]),
    st.dictionaries(st.sampled_from(["messages", "input", "prompt", "tools", "response_format"]), JSON),
)
def test_a_request_of_any_shape_has_features(route, request):
    features = read(route, request)

    assert len(features.values) == len(NAMES)
    assert all(0 <= value <= 1 for value in features.values)
    assert len(features.sketch) <= SKETCH


def test_a_long_chain_of_sums_looks_harder_than_a_greeting():
    made = state()

    assert made.hardness(look(HARD)) > 0.6 > 0.25 > made.hardness(look(EASY))


@pytest.mark.parametrize(
    ("text", "more", "kind"),
    [
        (HARD, {}, "math"),
        ("Fix this: ```def f(x): return x```", {}, "code"),
        ("Which is red?\nA) blood B) grass C) sky", {}, "choice"),
        ("A good way, or a different way?", {}, "open"),
        ("Hi", {"tools": [{"type": "function"}]}, "tools"),
        ("Hi", {"tools": [{"type": "function"}], "tool_choice": "none"}, "open"),
        ("Hi", {"response_format": {"type": "json_schema"}}, "json"),
    ],
)
def test_kinds_of_tasks_are_told_apart(text, more, kind):
    assert look(text, **more).kind == kind


def test_a_chain_is_a_matter_of_depth_and_a_short_sum_of_width():
    assert (look(HARD).shape, look("What is 3 + 4 times 2?").shape, look(EASY).shape) == ("depth", "width", "open")


def test_similar_questions_share_hashes_and_two_tenants_none():
    one = look("Ann has 3 apples and Bob has 4 more than Ann. How many apples does Bob have?")
    similar = look("Ann has 7 pears and Bob has 2 more than Ann. How many pears does Bob have?")
    elsewhere = read("chat", {"messages": [{"role": "user", "content": HARD}]}, tenant="other")

    assert len(set(one.sketch) & set(similar.sketch)) >= 6
    assert not set(look(HARD).sketch) & set(elsewhere.sketch)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT " * 100_000,
        "A) " * 300_000,
        "(" * 1_000_000,
        "1,1." * 250_000,
        "=> " * 300_000,
        "a\u0301" * 400_000,
        "\ud800" * 1000,
    ],
    ids=["select", "options", "brackets", "numbers", "arrows", "marks", "halves"],
)
def test_hostile_text_takes_no_time(text):
    look("warm")
    began = time.perf_counter()
    look(text)

    assert time.perf_counter() - began < 0.02
