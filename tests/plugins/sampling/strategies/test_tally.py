"""Votes are counted by what is said, and by nothing else."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.plugins.sampling.strategies.driver import passed, said

from predawn.plugins.sampling.answers import reader
from predawn.plugins.sampling.strategies.protocol import Sample
from predawn.plugins.sampling.strategies.tally import REFUTED, Tally

READ = reader({"messages": [{"role": "user", "content": "How many?"}]})
answers = st.lists(st.sampled_from([None, "41", "42", "42 km", "42,000 m", "3.14", "14", "50%", "0.5"]), max_size=20)


def sample(index: int, text: str | None, **members: Any) -> Sample:
    extracted = READ(text, ()) if text is not None else None
    given = {"text": text or "", "tokens": 5, "finish_reason": "stop", "finished": True, **members}
    return Sample(index, extracted=extracted, **given)


def shown(tally: Tally) -> str | None:
    return tally.leader.best.text if tally.leader is not None else None


def voted(*texts: str) -> Tally:
    return Tally([sample(index, text) for index, text in enumerate(texts)])


@given(answers, st.randoms())
def test_votes_are_permutation_invariant(texts: list[str | None], chance: random.Random) -> None:
    samples = [sample(index, text, tokens=len(text or "")) for index, text in enumerate(texts)]
    tally, other = Tally(samples), Tally(chance.sample(samples, len(samples)))

    assert tally.votes == other.votes
    assert tally.agreement == other.agreement
    assert tally.confidence(5) == other.confidence(5)
    assert shown(tally) == shown(other)


@given(answers, st.integers(1, 10))
def test_more_agreement_never_lowers_confidence(texts: list[str | None], left: int) -> None:
    samples = [sample(index, text) for index, text in enumerate(texts)]
    before = Tally(samples)
    if before.leader is None:
        return
    after = Tally([*samples, replace(before.leader.best, index=len(samples))])

    assert after.confidence(left - 1) >= before.confidence(left) - 1e-12
    assert shown(after) == shown(before)


def test_four_42_beat_one_41_wherever_it_stands() -> None:
    for place in range(5):
        texts = ["42"] * 4
        texts.insert(place, "41")

        assert shown(voted(*texts)) == "42"


def test_nine_42_against_one_pi_are_42() -> None:
    assert shown(voted(*["42"] * 9, "3.14")) == "42"


def test_one_answer_in_many_notations_is_one() -> None:
    tally = voted("The answer is 42.", "\\boxed{42}", "42.0", "It is 84/2", "41", "41", "41")

    assert tally.votes == [4, 3]


def test_between_equals_the_plain_and_short_one_is_shown() -> None:
    tally = Tally(
        [
            sample(0, "Perhaps it is 42", tokens=1),
            sample(1, "It must be 42", tokens=9),
            sample(2, "42", tokens=3),
            sample(3, "Maybe it is 41", tokens=1),
            sample(4, "I think it is 41", tokens=1),
            sample(5, "It might be 41", tokens=1),
        ]
    )

    assert tally.votes == [3, 3]
    assert shown(tally) == "42"


def test_what_was_cut_off_or_says_nothing_does_not_vote() -> None:
    tally = Tally(
        [sample(0, "41", finish_reason="length"), sample(1, None), sample(2, "42"), sample(3, "41", finished=False)]
    )

    assert (shown(tally), tally.total, tally.agreement) == ("42", 1, 1.0)


def test_a_vote_in_which_a_verifier_found_a_violation_counts_less() -> None:
    refuted = [sample(index, "41", verdicts=passed("violation")) for index in range(3)]
    tally = Tally([*refuted, sample(3, "42")])

    assert (shown(tally), tally.votes) == ("42", [1.0, round(3 * REFUTED, 9)])


def test_without_votes_there_is_no_leader() -> None:
    assert (Tally([]).leader, Tally([]).agreement, Tally([said(None)]).votes) == (None, None, [])
