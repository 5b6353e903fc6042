"""Texts that are made to hurt: none takes long, none raises, none crashes the interpreter."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.plugins.sampling.answers import BUILT_IN, reader
from predawn.plugins.sampling.answers.asked import asked_of

MEGABYTE = 1_000_000
MOST_S = 0.25
"""Generous: these take 25 ms at most by themselves, but tests share their machine."""
BAIT = {
    "digits": "9",
    "groups": ",234",
    "spaced": "1 ",
    "ranges": "1 - ",
    "fractions": "1/",
    "powers": "10**",
    "roofs": "2^",
    "exponents": "1e999999999 ",
    "units": "1 m ",
    "times": "2 hours and 30 minutes and ",
    "arabic": "٤",
    "halves": "½",
    "superscripts": "²",
    "euros": "€",
    "dashes": "-",
    "stars": "*",
    "blank": " ",
    "lines": "\n",
    "brackets": "[",
    "objects": '{"a":',
    "parentheses": "(",
    "boxes": "\\boxed{",
    "frac": "\\frac{1}{",
    "marks": "answer is ",
    "nots": "answer is: not 4. ",
    "hashes": "#### ",
    "fences": "```\n",
    "blocks": "```py\nx=1\n",
    "options": "A, ",
    "ands": "A and ",
    "yes": "yes ",
    "offers": "(A) x (B) y ",
    "lone": "\ud800",
    "nulls": "\x00",
}
PROGRAMS = {
    "unary": "x=" + "-" * 15000 + "1",
    "attributes": "x=a" + ".b" * 900,
    "long lines": "x=a" + "\\\n.b" * 4000,
    "lambdas": "x=" + "lambda:" * 280 + "1",
    "powers": "x=" + "1**\\\n" * 3000 + "1",
    "not": "x=" + "not\\\n" * 3000 + "1",
    "subscripts": "x=a" + "[0]\\\n" * 3000,
    "calls": "x=a" + "()\\\n" * 3000,
    "comparisons": "x=1" + "<\\\n1" * 3000,
    "conditions": "x=" + "1 if 1 else\\\n" * 1300 + "1",
    "elif": "if 1: x=1\n" + "elif 1: x=1\n" * 1500,
    "indented": "".join(" " * depth + "if 1:\n" for depth in range(150)),
    "huge integer": "x = " + "9" * 10000,
    "bad escapes": "x = '\\d'",
    "null": "x = '\x00'",
}


def took_s(text: str, name: str) -> float:
    read = reader({"messages": [{"role": "user", "content": "How many? A) x\nB) y"}]}, name)
    began = time.thread_time()
    read(text, ())
    return time.thread_time() - began


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("bait", BAIT.values(), ids=BAIT.keys())
def test_a_megabyte_of_bait_is_read_quickly(bait: str, name: str) -> None:
    text = bait * (MEGABYTE // len(bait))

    assert took_s(text, name) < MOST_S
    assert took_s(text[:16_000], name) < MOST_S


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_programs_that_are_deep_or_odd_are_read_quickly(program: str) -> None:
    assert took_s(f"```python\n{program}\n```", "code") < MOST_S


@pytest.mark.parametrize("bait", BAIT.values(), ids=BAIT.keys())
def test_questions_of_bait_are_read_quickly(bait: str) -> None:
    request = {"messages": [{"role": "user", "content": bait * (MEGABYTE // len(bait))}]}
    began = time.thread_time()
    asked_of(request)

    assert time.thread_time() - began < MOST_S


def test_many_numbers_of_json_are_read_quickly() -> None:
    assert took_s("[" + "1," * 31_000 + "1]", "json") < MOST_S
    assert took_s("{" + ",".join(f'"{number}":1' for number in range(6000)) + "}", "json") < MOST_S


@given(st.text(max_size=300), st.sampled_from(sorted(BUILT_IN)))
def test_no_text_raises(text: str, name: str) -> None:
    found = reader({"messages": [{"role": "user", "content": text}]}, name)(text, ())

    assert found is None or isinstance(hash(found.key), int)


pieces = st.sampled_from(
    [
        "answer is ",
        "\\boxed{",
        "}",
        "-",
        "1",
        "2.5",
        ",",
        "/",
        "^",
        "%",
        "km",
        "(",
        ")",
        " ",
        "and",
        "A",
        "**",
        "$",
        "½",
        "=",
    ]
)


@given(st.lists(pieces, max_size=40).map("".join), st.sampled_from(sorted(BUILT_IN)))
def test_no_mixture_of_marks_raises(text: str, name: str) -> None:
    found = reader({"messages": [{"role": "user", "content": "How many?"}]}, name)(text, ())

    assert found is None or (hash(found.key) is not None and len(found.shown) < 1000)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"function": st.dictionaries(st.sampled_from(["name", "arguments"]), st.text() | st.none())}
        )
    )
)
def test_no_call_raises(calls: list[Any]) -> None:
    found = reader({}, "auto")("", calls)

    assert found is None or len(found.shown) < 100_000
