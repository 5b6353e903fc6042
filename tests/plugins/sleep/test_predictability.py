"""How likely questions are, given a context."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.plugins.sleep.predictability import Guesses, is_covered, likelihood, words, words_of_all

GUESSES = Guesses(
    ["How many apples does Ann have?", "How many apples does Bob have?", "How many apples do they have together?"]
)


def test_the_guessed_question_agrees():
    assert GUESSES.agreement("how many apples does bob have") == 1


def test_the_same_phrase_about_somebody_else_agrees_less():
    bob, zoe = (GUESSES.agreement(f"How many apples does {name} have?") for name in ("Bob", "Zoe"))

    assert zoe < 0.75 < bob


def test_another_question_hardly_agrees():
    assert GUESSES.agreement("What is the capital of France?") < 0.1
    assert GUESSES.agreement("") == 0
    assert Guesses([]).agreement("How many?") == 0


def test_words_without_spaces_between_them_are_compared_by_pairs():
    assert words("東京は") == {"東京", "京は"}
    assert Guesses(["東京の人口は?"]).agreement("東京の人口") > 0.7


@given(st.lists(st.text(max_size=30), max_size=5), st.text(max_size=50))
def test_agreement_is_a_share(guesses, question):
    assert 0 <= Guesses(guesses).agreement(question) <= 1 + 1e-9


def test_likelihood_is_the_geometric_mean():
    assert likelihood([math.log(0.5), math.log(0.125)]) == pytest.approx(0.25)
    assert likelihood([]) == 0
    assert likelihood([float("-inf"), float("nan"), 0.0]) < 1e-6


@pytest.mark.parametrize(
    ("question", "covered"),
    [
        ("How many apples does Bob have?", True),
        ("How many apples does Zoe have?", False),
        ("What about it?", True),
        ("Compare Ann and Zoe, please.", True),
    ],
)
def test_notes_cover_the_names_that_they_hold(question, covered):
    assert is_covered(question, words_of_all("Ann = 3. Bob = 7.")) is covered
