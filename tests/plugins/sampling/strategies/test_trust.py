"""One sure answer in place of a vote: what is learnt of sureness, and what `confidence` makes of it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.plugins.sampling.strategies.driver import Driver, answered, said

from predawn.plugins.sampling.strategies.trust import CHECKED, ENOUGH, LEAST_ABOVE, MOST, Place, Trust, Trusts, stairs

SURE, UNSURE = -0.01, -0.5
learnt = st.lists(st.tuples(st.floats(-10, 0), st.booleans()), min_size=1, max_size=200).map(sorted)


def taught(times: int = 40) -> Trust:
    """Sure samples were always confirmed, unsure ones never."""
    trust = Trust()
    for at in range(times):
        trust.learn(SURE + at / 1e5, confirmed=True)
        trust.learn(UNSURE + at / 1e5, confirmed=False)
    return trust


def answering(trust: Trust, *samples: tuple[int, float], **options: object) -> Driver:
    driver = Driver("confidence", trust=trust, **{"samples": 16, **options})
    return driver.answer(*(said(answer, worst_logprob=sureness) for answer, sureness in samples))


def test_one_sure_answer_is_enough() -> None:
    driver = answering(taught(), (42, SURE))
    assert driver.stop is not None

    assert (driver.started, driver.answered, driver.stop.why) == (1, 42, "sure")
    assert driver.stop.confidence is not None
    assert driver.stop.confidence > 0.95


def test_an_unsure_answer_is_not_and_the_next_sure_one_decides() -> None:
    driver = answering(taught(), (41, UNSURE), (42, SURE))

    assert (driver.waves, driver.answered) == ([1, 1], 42)


def test_where_no_sample_is_sure_they_vote() -> None:
    driver = answering(taught(), *[(42, UNSURE)] * 16)
    assert driver.stop is not None

    assert (driver.answered, driver.stop.why) == (42, "settled")
    assert driver.started < 6


def test_what_is_less_sure_than_all_that_was_learnt_from_is_not_trusted() -> None:
    trust = Trust()
    for _ in range(100):
        trust.learn(SURE, confirmed=True)

    assert (trust.chance(SURE) or 0) > 0.99
    assert trust.chance(UNSURE) == 0.5


def test_where_sureness_tells_nothing_nobody_is_trusted() -> None:
    trust, draw = Trust(), random.Random(7)
    for _ in range(400):
        trust.learn(draw.uniform(-1, 0), confirmed=draw.random() < 0.8)
    driver = answering(trust, (42, -0.0001), (42, -0.0001))

    assert len(driver.waves) == 1
    assert driver.waves[0] > 1


def test_votes_teach_and_then_one_answer_is_enough() -> None:
    trust, drawn = Trust(), []
    for _ in range(30):
        drawn.append(answering(trust, *[(42, SURE)] * 16).started)

    assert drawn[0] == 3
    assert drawn[-1] == 1


def test_an_answer_that_two_others_contradict_teaches_too() -> None:
    trust = Trust()
    for _ in range(30):
        answering(trust, (41, UNSURE), (42, SURE), (42, SURE), *[(42, SURE)] * 13)

    assert (trust.chance(SURE) or 0) > 0.9
    assert (trust.chance(UNSURE) or 1) < 0.1


def test_now_and_then_a_sure_answer_is_put_to_a_vote() -> None:
    trust = taught()
    drawn = [answering(trust, *[(42, SURE)] * 16).started for _ in range(CHECKED + 1)]

    assert drawn == [1] * CHECKED + [3]


def test_a_model_that_changed_is_noticed() -> None:
    trust = taught(ENOUGH)
    asked = [answering(trust, *[(number, SURE) for number in range(16)]) for _ in range(2)]
    for _ in range(ENOUGH * 3):
        trust.learn(SURE, confirmed=False)

    assert [driver.started for driver in asked] == [1, 1]
    assert answering(trust, *[(42, SURE)] * 16).started > 1


@pytest.mark.parametrize("options", [{"min_samples": 4}, {"min_samples": 2, "samples": 2}])
def test_whoever_asks_for_more_samples_gets_them(options: dict[str, int]) -> None:
    assert answering(taught(), *[(42, SURE)] * 4, **options).started >= options["min_samples"]


def test_a_mostly_unsure_model_is_asked_several_at_once() -> None:
    trust = taught()
    for _ in range(200):
        trust.tried(is_sure=False)
        trust.tried(is_sure=False)
        trust.tried(is_sure=True)

    assert 2 <= Driver("confidence", trust=trust, samples=16).started <= 4


def test_no_more_are_drawn_at_once_than_a_vote_would_draw() -> None:
    trust = taught()
    for _ in range(200):
        trust.tried(is_sure=False)

    assert Driver("confidence", trust=trust, samples=16).waves == Driver("vote", samples=16).waves


def test_where_samples_do_not_say_how_sure_they_are_it_is_soon_a_plain_vote() -> None:
    trust = Trust()
    drawn = [answered("confidence", [42], samples=3, trust=trust).started for _ in range(5)]

    assert drawn == [3, 3, 3, 2, 2]


def test_what_was_learnt_before_comes_before_what_was_learnt_since() -> None:
    trust = taught(2)
    since = trust.known
    trust.recall([(SURE, True)] * 600)

    assert trust.known == [*[(SURE, True)] * (MOST - len(since)), *since]
    assert (trust.is_learnt, trust.is_loaded) == (True, True)


@given(learnt)
def test_the_surer_the_likelier(known: list[tuple[float, bool]]) -> None:
    steps = stairs(known)

    assert sum(step.seen for step in steps) == len(known)
    assert sum(step.confirmed for step in steps) == sum(confirmed for _, confirmed in known)
    assert [step.share for step in steps] == sorted(step.share for step in steps)
    assert len(steps) == 1 or steps[-1].seen >= LEAST_ABOVE


@given(learnt, st.floats(-20, 1), st.floats(0, 5))
def test_chances_rise_with_sureness_and_stay_between_0_and_1(
    known: list[tuple[float, bool]], sureness: float, more: float
) -> None:
    trust = Trust()
    for one, confirmed in known * 8:
        trust.learn(one, confirmed=confirmed)
    chance, better = trust.chance(sureness), trust.chance(sureness + more)

    assert (chance is None) == (len(known) * 8 < ENOUGH)
    assert chance is None or better is None or 0 < chance <= better < 1


def test_tenants_models_and_efforts_learn_apart_and_the_oldest_is_forgotten() -> None:
    trusts = Trusts(most=2)
    mine = trusts.of(Place("me", "m", "low"))
    mine.learn(SURE, confirmed=True)

    assert trusts.of(Place("me", "m", "low")) is mine
    assert trusts.of(Place("you", "m", "low")) is not mine
    trusts.of(Place("you", "m", "high"))
    assert len(trusts) == 2
    assert trusts.of(Place("me", "m", "low")) is not mine
