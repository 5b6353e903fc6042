"""Numbers: one value however it is written, and nothing rather than a wrong one."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.plugins.sampling.answers import reader
from predawn.plugins.sampling.answers.units import resolved
from predawn.proxy.extensions import Extracted


def read(text: str, question: str = "How many apples does Bob have?", wanted: str = "auto") -> Extracted | None:
    request = {"messages": [{"role": "user", "content": question}]}
    return reader(request, wanted)(text, ())


def key(text: str, question: str = "How many apples does Bob have?") -> Any:
    found = read(text, question)
    return found.key if found is not None else None


def same(left: str, right: str, question: str = "How much is it?") -> bool:
    first, second = resolved([key(left, question), key(right, question)])
    return first is not None and first == second


@pytest.mark.parametrize(
    "text",
    [
        "7",
        "7.",
        "7.0",
        "**7**",
        "*7*",
        "`7`",
        "$7$",
        "$$7$$",
        "$$ 7 $$",
        "The final answer is\n\n$$7$$",
        "Bob has 7 apples.",
        "The answer is 7.",
        "The answer is **7**.",
        "The answer is: 7",
        "Answer: 7",
        "**Answer:** 7 apples",
        "#### 7",
        "\\boxed{7}",
        "$$\\boxed{7 \\text{ apples}}$$",
        "\\(\\boxed{\\text{7}}\\)",
        "3 + 4 = 7",
        "3 + 4 = 7. Bob = 7.",
        "The answer is 3 + 4 = 7.",
        "x = 7",
        "14/2",
        "The answer is seven.",
        "٧",
        "７",
        "The answer is not 8. The answer is 7.",
        "The answer is 7, not 8.",
        "The answer is 7 (since 3 + 4 = 7).",
        "The answer is 7 because 8 is too many",
        "The answer is\n\n7",
        "First I thought of 8.\nAnswer: 7\nThat took me 3 minutes.",
        "The answer is 7 apples, and Cat has 9.",
        "The answer is 7 out of 10.",
        "The answer is 7, i.e. 7 apples",
        "答案是7。",
        "He has 7:\n1. red\n2. green\n7. blue",
        "0.7e1",
        "0.07 × 10^2",
    ],
)
def test_seven_is_seven(text: str) -> None:
    assert key(text) == key("7")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,234.5", "1234.5"),
        ("1.234,5", "1234.5"),
        ("1 234", "1234"),
        ("1\u202f234", "1234"),
        ("1'234", "1234"),
        ("1{,}234", "1234"),
        ("1\\,234", "1234"),
        ("1,234,567", "1234567"),
        ("1.234.567", "1234567"),
        ("3,5", "3.5"),
        ("0,125", "0.125"),
        ("1.234", "1.234"),
        (".5", "0.5"),
        ("1/3", "1/3"),
        ("\\frac{1}{3}", "1/3"),
        ("\\dfrac{ 1 }{ 3 }", "1/3"),
        ("½", "1/2"),
        ("3½", "7/2"),
        ("3 1/2", "7/2"),
        ("-5", "-5"),
        ("−5", "-5"),
        ("minus 5", "-5"),
        ("x = -5", "-5"),
        ("50%", "1/2"),
        ("50 percent", "1/2"),
        ("50 per cent", "1/2"),
        ("50\\%", "1/2"),
        ("1.2 million", "1200000"),
        ("3 thousand", "3000"),
        ("2k", "2000"),
        ("2 dozen", "24"),
        ("5e3", "5000"),
        ("6.02 × 10^{23}", "602" + "0" * 21),
        ("2^10", "1024"),
        ("5²", "25"),
        ("10³", "1000"),
        ("about 5", "5"),
        ("1st", "1"),
    ],
)
def test_notations_have_their_value(text: str, value: str) -> None:
    assert key(text) == key("\\boxed{%s}" % value)
    assert key(text).value == Fraction(value)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("42 km", "42"),
        ("42 km", "42,000 m"),
        ("$42", "42 dollars"),
        ("$42", "42"),
        ("42 cents", "$0.42"),
        ("90 minutes", "1.5 hours"),
        ("90 minutes", "1 hour and 30 minutes"),
        ("60 km/h", "60 km per hour"),
        ("60 km/h", "1 km per minute"),
        ("2 m²", "2 m^2"),
        ("1 m^3", "1000 liters"),
        ("2 years", "24 months"),
        ("50%", "0.5"),
        ("(3, 4)", "(3,4)"),
        ("2 or 3", "3 and 2"),
    ],
)
def test_equal_quantities_are_equal(left: str, right: str) -> None:
    assert same(left, right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("42", "41"),
        ("42", "42.5"),
        ("3.14", "14"),
        ("42", "4.2"),
        ("1,234", "1.234"),
        ("5 km", "5 m"),
        ("5 kg", "5 km"),
        ("50%", "50"),
        ("-5", "5"),
        ("$5", "€5"),
        ("(3, 4)", "(4, 3)"),
        ("(3, 4)", "(5, 4)"),
        ("5 m", "5 m^2"),
        ("1/2", "1/3"),
        ("5²", "52"),
    ],
)
def test_other_quantities_are_not(left: str, right: str) -> None:
    assert not same(left, right)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I do not know.",
        "The answer is unknown.",
        "The answer is x > 5",
        "The answer is 3 + 4",
        "The answer is 2x",
        "The answer is √2",
        "3-4",
        "3 – 4",
        "12:30",
        "2024-05-06",
        "COVID-19",
        "H2O",
        "v1.2.3",
        "1/0",
        "1/2/3",
        "5 ± 1",
        "10**10**10",
        "10^10^10",
        "1e999999999",
        "9" * 5000,
        "1,23,45",
        "\\boxed{",
        "The answer is that Bob has 4 more than Ann, so he has 7",
        "It is at least 5",
        "Bob has 7, which is more than 3",
        "The answer is not 7.",
        "It is 42, not 7.",
    ],
)
def test_what_is_no_plain_number_says_nothing(text: str) -> None:
    assert key(text) is None


def test_a_number_without_a_unit_goes_with_the_only_one_that_has() -> None:
    kilometres, bare, metres = (key(text, "How far?") for text in ("42 km", "42", "42 m"))

    assert len(set(resolved([kilometres, bare]))) == 1
    assert len(set(resolved([kilometres, bare, metres]))) == 3


def test_a_unit_that_the_question_names_goes_without_saying() -> None:
    question = "How many minutes does it take?"

    assert key("90", question) == key("1.5 hours", question) == key("90 minutes", question)


def test_a_percentage_that_is_asked_for_goes_without_saying() -> None:
    question = "What percentage of the apples is red?"

    assert key("50", question) == key("50%", question) == key("1/2 of them, so 50 percent", question)


def test_the_last_number_of_a_story_is_not_what_it_answers() -> None:
    assert key("In 1984 there lived a boy.\nHe had 7 apples.", "Write a story about a boy.") is None


def test_the_number_extractor_takes_the_last_number_of_any_text() -> None:
    found = read("There are 3 red ones.\nAnd 4 green ones.", "Tell me about apples.", "number")
    assert found is not None

    assert found.shown == "4"


@given(st.fractions(min_value=-(10**9), max_value=10**9, max_denominator=10**6))
def test_every_fraction_is_read_as_itself(value: Fraction) -> None:
    written = str(value) if value >= 0 else f"-{-value}"

    assert key(f"\\boxed{{{written}}}").value == value


@given(st.integers(-(10**15), 10**15))
def test_thousands_are_read_as_themselves(value: int) -> None:
    assert key(f"The answer is {value:,}.").value == value


@given(st.decimals(min_value=-(10**6), max_value=10**6, places=3))
def test_decimals_are_read_as_themselves(value: Any) -> None:
    assert key(f"{value:.3f}").value == Fraction(value)
