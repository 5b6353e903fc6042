"""Text into steps: the same steps however the text was cut into chunks, and no step that never ends."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.plugins.verify.cutting import WINDOW, WINDOW_REST, cutter, name_of

NAMES = ("line", "sentence", "paragraph", "json", "reasoning_step", "window")
TRICKY = st.text(alphabet="ab 1.=?!\n\r\t\"'{}[]\\:,。！)*7\u2028\U0001f600", max_size=200)


def steps(boundary, text, longest=8192):
    """The steps of a whole text, the open one last."""
    ends = cutter(boundary, longest).feed(text)
    return [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]


def pieces(text, cuts):
    places = sorted({min(cut, len(text)) for cut in cuts})
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


@given(TRICKY, st.lists(st.integers(0, 200)), st.sampled_from(NAMES), st.sampled_from([8, 30, 64, 8192]))
def test_steps_do_not_depend_on_how_the_text_came(text, cuts, boundary, longest):
    whole = cutter(boundary, longest).feed(text)
    parts = cutter(boundary, longest)

    assert [end for piece in pieces(text, cuts) for end in parts.feed(piece)] == whole


@given(TRICKY, st.sampled_from(NAMES), st.sampled_from([8, 64]))
def test_steps_are_not_empty_and_not_longer_than_allowed(text, boundary, longest):
    ends = cutter(boundary, longest).feed(text)

    assert all(0 < end - start <= longest for start, end in zip([0, *ends], ends, strict=False))


@pytest.mark.parametrize(
    ("boundary", "text", "expected"),
    [
        ("line", "a\nb\n\nc", ["a\n", "b\n", "\nc"]),
        ("sentence", "It is 3.14 cm. So? Yes!", ["It is 3.14 cm.", " So?", " Yes!"]),
        ("sentence", 'He said "no." Then left. ', ['He said "no."', " Then left.", " "]),
        ("sentence", "1. Add them. 2. Stop.", ["1. Add them.", " 2. Stop."]),
        ("sentence", "是的。不是。", ["是的。", "不是。", ""]),
        ("paragraph", "a\nb\n\nc\n \t\nd", ["a\nb\n\n", "c\n \t\n", "d"]),
        ("json", 'Here: {"a": "}"} and [1, [2]].', ['Here: {"a": "}"}', " and [1, [2]]", "."]),
        ("json", '{"a": "\\"}"}x', ['{"a": "\\"}"}', "x"]),
        ("reasoning_step", "Bob is Ann + 4. 3 + 4 = 7. Fine.\nSo", ["Bob is Ann + 4. 3 + 4 = 7.", " Fine.\n", "So"]),
        ("tool_call", "{}\n{}", ["{}\n{}"]),
    ],
)
def test_steps_end_where_one_would_expect(boundary, text, expected):
    assert steps(boundary, text) == expected


def test_a_window_ends_between_words():
    first, second = steps("window", "word " * 41 + "x" * 400)[:2]

    assert len(first) == WINDOW + 4
    assert len(second) == WINDOW + WINDOW_REST


def test_a_splitter_of_ones_own_says_how_long_the_first_step_is():
    def by_semicolon(text):
        return text.find(";") + 1

    assert steps(by_semicolon, "a;bb;c") == ["a;", "bb;", "c"]
    assert name_of(by_semicolon) == "by_semicolon"


@pytest.mark.parametrize("boundary", NAMES)
@pytest.mark.parametrize("bait", ["\n", "a", "a. ", "[", '"', '{"\\', " ", '."""', "1. ", "\r\n\t"])
def test_a_text_made_to_be_slow_is_not(boundary, bait):
    text = bait * (100_000 // len(bait))
    cutting = cutter(boundary)
    began = time.perf_counter()
    for start in range(0, len(text), 16384):
        cutting.feed(text[start : start + 16384])

    assert time.perf_counter() - began < 1.0
