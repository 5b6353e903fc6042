"""Equations in prose: found, read without eval, and checked exactly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.plugins.sleep.arithmetic import equations, value_of, wrong_equations


@pytest.mark.parametrize(
    "text",
    [
        "3 + 4 = 7",
        "- 3 + 4 = 7",
        "1. 3 + 4 = 7.",
        "She pays 9 * $2 = $18 a day.",
        "16 - 3 - 4 = 9 eggs, 9 * 2 = 18",
        "10 / 3 = 3.33",
        "2 x 3 = 6",
        "2 × 3 = 12 ÷ 2 = 6",  # noqa: RUF001
        "1,000 * 3 = 3,000",
        "(1 + 2) * 3 = 9",
        "7 = 3 + 4",
        "0.1 + 0.2 = 0.3",
        "5 − 7 = -2",  # noqa: RUF001
        "Bob = 7. 3 + 4 = 7. Bob = 7.",
    ],
)
def test_right_equations_hold(text):
    assert wrong_equations(text) == []
    assert equations(text)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("3 + 4 = 8", ["3 + 4 = 8"]),
        ("So 3 + 4 = 7, and 7 * 2 = 15.", ["7 * 2 = 15"]),
        ("10 / 3 = 3", ["10 / 3 = 3"]),
        ("10 / 3 = 3.3, 10 / 3 = 3.4", ["10 / 3 = 3.4"]),
        ("- total: 1,200 - 200 = 900", ["1,200 - 200 = 900"]),
        ("2 + 2 = 4 = 5 - 2", ["4 = 5 - 2"]),
    ],
)
def test_wrong_equations_are_told(text, wrong):
    assert wrong_equations(text) == wrong


@pytest.mark.parametrize(
    "text",
    [
        "x = 3 + y",
        "total - 3 = 4",
        "2x = 14",
        "3 apples + 4 apples = 7 apples",
        "Bob = 7.",
        "7 / 0 = 1",
        "5 + 5 = 10k",
        "half = 50%",
        "1 / 2 = 50%",
        "2 ** 3 = 8",
        "__import__('os') = 3 + 4j",
        "9" * 60 + " + 1 = 2",
        "(" * 200 + "1" + ")" * 200 + " + 1 = 3",
    ],
)
def test_what_is_no_plain_arithmetic_is_left_alone(text):
    assert equations(text) == []


def test_an_expression_has_an_exact_value():
    assert value_of("1/3 + 1/6") * 2 == 1
    assert value_of("2 * (3 - 5)") == -4
    assert value_of("1 / (2 - 2)") is None
    assert value_of("import os") is None


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(1, 100))
def test_an_equation_holds_only_if_it_is_true(a, b, off):
    assert wrong_equations(f"It is {a} + {b} = {a + b}.") == []
    assert wrong_equations(f"It is {a} + {b} = {a + b + off}.") == [f"{a} + {b} = {a + b + off}"]


@given(st.text(alphabet="0123456789+-*/()=., $x\n", max_size=300))
def test_no_text_breaks_the_reader(text):
    equations(text)
