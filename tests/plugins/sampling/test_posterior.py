"""The posterior of a vote: exact where it can be checked, and monotone everywhere."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.plugins.sampling.posterior import HORIZON, SCATTER, UNSEEN, confidence, needed, risk

votes = st.lists(st.integers(1, 12), min_size=1, max_size=8)
left = st.integers(0, 40)


@given(votes, left, st.randoms())
def test_the_order_of_votes_makes_no_difference(counts: list[int], draws: int, chance: random.Random) -> None:
    shuffled = chance.sample(counts, len(counts))

    assert risk(shuffled, draws) == risk(counts, draws)


@given(votes, left)
def test_the_risk_is_a_chance(counts: list[int], draws: int) -> None:
    assert 0 <= risk(counts, draws) <= 1


@given(votes, st.integers(1, 40))
def test_more_agreement_never_lowers_confidence(counts: list[int], draws: int) -> None:
    first, *others = sorted(counts, reverse=True)

    assert confidence([first + 1, *others], draws - 1) >= confidence([first, *others], draws) - 1e-12


@given(votes, st.integers(1, 40))
def test_a_further_vote_on_top_of_the_same_draws_never_lowers_confidence(counts: list[int], draws: int) -> None:
    first, *others = sorted(counts, reverse=True)

    assert confidence([first + 1, *others], draws) >= confidence([first, *others], draws) - 1e-12


@given(votes, left)
def test_a_lead_that_cannot_be_caught_up_with_is_certain(counts: list[int], draws: int) -> None:
    first, *others = sorted(counts, reverse=True)
    safe = [first + draws + 1, *others]

    assert risk(safe, draws) == 0


def test_without_votes_nothing_is_known() -> None:
    assert risk([], 5) == 1


def test_a_tie_at_the_end_is_a_half() -> None:
    assert risk([3, 3], 0) == 0.5


def test_two_answers_are_counted_as_an_urn_counts_them() -> None:
    """Against the urn itself: a leader of 3, a rival of 1, six draws, 200,000 times."""
    chance = random.Random(1)
    overtaken = 0.0
    for _ in range(200_000):
        masses, votes = [3 - SCATTER, 1 - SCATTER, 4 + UNSEEN - 4 + 2 * SCATTER], [3, 1, 0]
        for _ in range(6):
            (drawn,) = chance.choices(range(3), masses)
            masses[drawn] += 1
            votes[drawn] += 1
        overtaken += 1 if votes[1] > votes[0] else 0.5 if votes[1] == votes[0] else 0
    alone = risk([3, 1], 6) - _unseen_overtakes()

    assert alone == pytest.approx(overtaken / 200_000, abs=0.003)


def _unseen_overtakes() -> float:
    from predawn.plugins.sampling.posterior import _overtakes

    return _overtakes(3, 0.0, 4 + UNSEEN, 6)


@given(votes, st.integers(0, 30), st.floats(0.001, 0.5))
def test_what_is_needed_is_enough_and_one_less_is_not(counts: list[int], draws: int, epsilon: float) -> None:
    first, *others = sorted(counts, reverse=True)
    count = needed(counts, draws, epsilon)

    assert count == draws or risk([first + count, *others], draws - count) < epsilon
    assert count == 0 or risk([first + count - 1, *others], draws - count + 1) >= epsilon


def test_three_that_agree_settle_a_vote_of_sixteen_and_two_do_not() -> None:
    assert risk([3], 13) < 0.05 < risk([2], 14)
    assert needed([], 16, 0.05) == 3


def test_many_votes_are_counted_in_little_time() -> None:
    began = time.thread_time()
    for lead in range(10):
        risk([20.5 + lead, 18.25, 17, 16, 15, 14, 1, 1], 10 * HORIZON)

    assert time.thread_time() - began < 0.2
