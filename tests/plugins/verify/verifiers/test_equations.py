"""Equations in prose: wrong ones are found and put right, right ones and look-alikes are left alone."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.plugins.verify.verifiers.equations import corrected, equations, sentences
from predawn.plugins.verify.verifiers.numerals import spoken
from predawn.plugins.verify.verifiers.tokens import plain

WRONG = [
    "3 + 4 = 8.",
    "Bob is Ann + 4. 3 + 4 = 8. Bob = 8.",
    "3 apples and 4 more makes 8",
    "3 apples and 4 more makes 8 apples.",
    "half of 12 is 5.",
    "Half of the 12 apples is 5.",
    "a third of 12 is 5",
    "20% of 50 is 11.",
    "20% of 50 = 1000.",
    "twice 6 is 13",
    "three plus four is eight",
    "Twelve divided by 4 equals 2.",
    "So 3 + 4 = 7, and 7 * 2 = 15.",
    "She pays 9 * $2 = $19 a day.",
    "10 / 3 = 3",
    "10 / 3 = 3.4",
    "1,000 * 3 = 3,001",
    "16 - 3 - 4 = 8 eggs",
    "48/2 = <<48/2=23>>23 clips",
    "\\( 3 + 4 = 8 \\)",
    "\\frac{12}{4} = 4",
    "**3 + 4 = 8**",
    "$3 + 4 = 8$",
    "3 × 4 = 13",
    "3 x 4 = 13",
    "80 + 10% = 89",
    "2 hours = 100 minutes",
    "5 km + 300 m = 5.4 km",
    "2^3 = 9",
    "5 squared is 24",
    "the sum of 3 and 4 is 8",
    "3 less than 10 is 8",
    "7 = 3 + 5",
    "3 apples + 4 apples = 8 apples",
    "60 km/h * 2 h = 130 km",
    "9 * 2, which is 19",
    "2.50 * 3 = 7.51",
    "12 minus 5 leaves 8.",
    "Then 5 + 5 = 11!",
    "100 / 7 ≈ 16.3",
    "(3 + 4) * 2 = 15",
    "1.5 million + 2 million = 4.5 million",
    "45 + 30 + 25 = 90",
    "16 - 3 = 13 - 4 = 10",
    "two thirds of 12 is 9",
    "$12.50 + $3.25 = $15.85",
    "3 and 4 make 8",
    "- 3 + 4 = 8",
    "1. 3 + 4 = 8",
    "３ + ４ = ８",
    "3\u200b + 4 = 8",
    "25% * 80 = 25",
    "Total: $5 per hour * 3 hours = $16",
    "5 dollars per hour * 3 hours = 16 dollars",
    "He sprints 3*3=10 times",
    "Henry traveled 60 miles - 35 miles = 26 miles between the stops",
    "each with 8 pieces, which is 5*8=42 pieces of pie.",
    "Half of Ann's is 40/2 = 19",
    "180 students would need 180/5 = 35 teachers",
    "They have 150 miles/train * 2 trains = 302 miles together",
    "10% of 40 seconds is 40*0.1=14 seconds.",
    "His next 2 buy 2 * 2 = 14 books.",
    "Janeth pays $165 x 12 = $1990 in 12 months.",
    "She paid $140-$14 = $125 each month for the remaining half of the year.",
    "40*.01 = 4",
]

FINE = [
    "3 + 4 = 7",
    "10 / 3 = 3.33",
    "10 / 3 ≈ 3",
    "2/3 = 0.66",
    "1/3 = 33%",
    "1/2 = 50%",
    "5 / 20 * 100 = 25%",
    "80 + 10% = 88",
    "50% + 20% = 70%",
    "x = 3 + y",
    "x + 3 + 4 = 10",
    "total - 3 = 4",
    "2x + 3 = 7",
    "f(3) + 4 = 8",
    "sqrt 9 + 1 = 4",
    "On 2024-11-15 is 3 days away",
    "2024-11-15 is 3 days away",
    "3/4 is 5 days before",
    "1.2.3 + 4 = 7",
    "version 3.4 is 2 years old",
    "x[3] + 4 = 9",
    "a = 3 + 4;",
    "2 ** 3 = 8",
    "17 / 5 = 3 remainder 2",
    "17 / 5 = 3 R 2",
    "11 + 3 = 2 (mod 12)",
    "1 + 1 = 10 in binary",
    "Is 3 + 4 = 8?",
    "It is not true that 3 + 4 = 8.",
    "3 + 4 = 8 is wrong.",
    "3 + 4 != 8",
    "Suppose 3 + 4 = 8.",
    "16 - 3 = 13 - 4 = 9",
    "5 + 3 = 8 * 2 = 16",
    "2 eggs and 3 cups of flour make 12 cookies",
    "chapters 3 and 4 make 20 pages",
    "3 times as many is 12",
    "198 * 5 ≈ 200 * 5 = 1000",
    "3.33 * 3 = 10",
    "1000 / 3 = 333",
    "90 minutes + 30 minutes = 2 hours",
    "90 minutes / 60 = 1.5 hours",
    "5 km + 300 m = 5.3 km",
    "3 boxes * 4 apples = 12 apples",
    "1.500 + 600 = 2.100",
    "3,5 + 4,5 = 8",
    "1 000 + 1 = 1 001",
    "2 1/2 + 1/2 = 3",
    "5² = 25",
    "-3^2 = 9",
    "-3^2 = -9",
    "10:30 + 2 = 12:30",
    "5! = 120",
    "3 + 4 = 7!",
    "-2 + 5 = 3",
    "7 - -2 = 9",
    "3 + 4 is 2 more than 5",
    "the ratio 3:4 = 6:8",
    "2-3 is 4 hours",
    "2020-2024 is 5 years",
    "1-800-555 is 3 numbers",
    "print(3 + 4) = 8",
    "2 dozen + 3 eggs = 27 eggs",
    "2(3 + 4) = 14",
    "1.8e19 + 1 = 1.8e19",
    "2^64 = 1.84e19",
    "2 + 2 = 4 apples, 3 of 5 = 0.6",
    "Room 3 + 4 = big",
    "| 3 + 4 | 8 |",
    "the 3 + 4 rule = 8 ways",
    "He is 5 and 3 is 8",
    "12 / 4 = 3 boxes, 4 = 2 * 2",
    "12 apples / 4 = 3 apples each",
    "3 1 + 4 = 5",
    "3 + 4 == 8",
    "0.1 + 0.2 = 0.3",
    "50 * 2 = 1e2",
    "$1,234.50 * 2 = $2,469",
    "25 - 9 = 16 and 16 / 4 = 4",
    "Let n = 5 so 2n + 1 = 12",
    "7 / 0 = 1",
    "half of Bob is 6",
    "10% of the people is 3 more",
    "7 x 3 matrix = 21 cells",
    "7x=700",
    "4s + 16 = 2s + 32",
    "So, 2L = 22 - 8 = 14",
    "Thus, W = 1 1/2 / 1/2 = 3 episodes.",
    "Since 2/5 is equal to 12.8 hectares, go on.",
    "An increase of 50% of 8 is 1.5*8=12.",
    "$40 + 3 9for all) = 21",
    "4s + 16 = 2(s + 16)",
    "He gets $8 / $2/day = 4 days",
    "12 inches / 12 inches/foot = 1 foot",
]


def found(text):
    return [equation for _, sentence in sentences(plain(text)) for equation in equations(sentence)]


def wrong(text):
    return [equation.text for equation in found(text) if not equation.holds]


@pytest.mark.parametrize("text", WRONG)
def test_wrong_equations_are_found(text):
    assert len(wrong(text)) == 1


@pytest.mark.parametrize("text", FINE)
def test_right_equations_and_look_alikes_are_left_alone(text):
    assert wrong(text) == []


@pytest.mark.parametrize("text", WRONG)
def test_a_corrected_sentence_is_right(text):
    for _, sentence in sentences(plain(text)):
        for equation in equations(sentence):
            if not equation.holds:
                put_right = corrected(sentence, equation)

                assert wrong(put_right) == []
                assert found(put_right)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("So 3 + 4 = 8. It goes on", "So 3 + 4 = 7."),
        ("She pays 9 * $2 = $19 a day.", "She pays 9 * $2 = $18 a day."),
        ("1,000 * 3 = 3,001", "1,000 * 3 = 3,000"),
        ("2.50 * 3 = 7.51", "2.50 * 3 = 7.50"),
        ("7 = 3 + 5", "8 = 3 + 5"),
        ("10 / 4 = 3", "10 / 4 = 2.5"),
        ("20% of 50 is 11.", "20% of 50 is 10."),
        ("2 hours = 100 minutes", "2 hours = 120 minutes"),
        ("1 / 4 = 30%", "1 / 4 = 25%"),
    ],
)
def test_the_correction_keeps_the_style(text, right):
    (at, sentence), *_ = sentences(text)
    (equation,) = equations(sentence)

    assert (0, right) == (at, corrected(sentence, equation))


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(1, 10**6))
def test_a_sum_holds_only_if_it_is_true(a, b, off):
    assert wrong(f"It comes to {a} + {b} = {a + b}.") == []
    assert wrong(f"It comes to {a} + {b} = {a + b + off}.") == [f"{a} + {b} = {a + b + off}"]


@given(st.decimals(0, 9999, places=2), st.decimals(0, 9999, places=2))
def test_decimals_are_exact(a, b):
    assert wrong(f"{a} + {b} = {a + b}") == []


@given(st.integers(1, 9999), st.integers(1, 999), st.integers(1, 6))
def test_rounding_to_the_digits_shown_is_no_fault(a, b, digits):
    assert wrong(f"{a} / {b} = {a / b:.{digits}f}") == []
    assert wrong(f"{a} / {b} ≈ {a / b:.{digits}f}") == []


@given(st.text(alphabet="0123456789+-*/()=.,% $x\n²½andhlfoism", max_size=300))
def test_no_text_breaks_the_reader(text):
    for equation in found(text):
        assert equation.text
        if not equation.holds:
            assert equation.right_result


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("forty two thousand three hundred and six apples", (42_306, 7)),
        ("three four", (3, 1)),
        ("one hundred", (100, 2)),
        ("apples", None),
    ],
)
def test_numbers_in_words_have_values(words, value):
    expected = None if value is None else (Fraction(value[0]), value[1])

    assert expected == spoken(words.split())
