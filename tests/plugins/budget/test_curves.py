"""Marginal gains: learnt per kind of task, flat where spending more surely helps nobody."""

import random

import pytest
from tests.plugins.budget.cases import outcome, state

from predawn.plugins.budget.settings import STANDARD_TIERS

NAMES = [tier.name for tier in STANDARD_TIERS]
COSTS = dict(zip(NAMES, (100, 400, 1600, 6400), strict=True))


def taught(gain_per_doubling, count=400, *, by_difficulty=False, seed=1, kind="math"):
    """A state after `count` outcomes; with `by_difficulty` hard requests get the dear tiers, as in real life."""
    draw, made = random.Random(seed), state()
    for at in range(count):
        difficulty = draw.random()
        tier = NAMES[min(int(difficulty * 4), 3)] if by_difficulty else draw.choice(NAMES)
        if draw.random() < 0.15:
            tier = draw.choice(NAMES)
        chance = 0.75 - 0.5 * difficulty + gain_per_doubling * 2 * NAMES.index(tier)
        quality = float(draw.random() < chance)
        made.learn(
            outcome(
                str(at),
                kind=kind,
                tier=tier,
                difficulty=difficulty,
                quality=quality,
                tokens=COSTS[tier] * draw.uniform(0.5, 1.5),
                source="verdict",
            )
        )
    return made.curves


def test_a_curve_that_gains_nothing_is_flat():
    assert taught(-0.02).is_flat("math")


@pytest.mark.parametrize("seed", range(5))
def test_a_curve_that_gains_is_not_flat_although_hard_requests_get_more_and_fail_more(seed):
    curves = taught(0.1, by_difficulty=True, seed=seed)

    assert not curves.is_flat("math")
    assert curves.slope("math").gain > 0.03


def test_samples_that_agree_prove_no_curve_flat():
    made = state()
    for at in range(400):
        tier = NAMES[2 + at % 2]
        made.learn(outcome(str(at), tier=tier, quality=0.95, tokens=COSTS[tier], source="agreement"))

    assert not made.curves.is_flat("math")
    assert made.curves.slope("math") is None


def test_few_outcomes_prove_nothing():
    assert not taught(-0.05, count=40).is_flat("math")


def test_one_kind_of_task_says_nothing_of_another():
    assert not taught(-0.02).is_flat("code")


def test_a_flat_curve_becomes_steep_again_when_the_model_does():
    made = state()
    draw = random.Random(3)
    for at in range(1500):
        tier = draw.choice(NAMES)
        chance = 0.5 if at < 500 else 0.2 + 0.25 * NAMES.index(tier)
        quality = float(draw.random() < chance)
        made.learn(outcome(str(at), tier=tier, quality=quality, tokens=COSTS[tier], source="verdict"))
        if at == 499:
            was_flat = made.curves.slope("math").gain < 0.03

    assert was_flat
    assert not made.curves.is_flat("math")


def test_costs_are_learnt_where_they_were_seen_and_guessed_elsewhere():
    curves = taught(0.05)

    assert curves.cost("math", "usual", 0.5) == pytest.approx(400, rel=0.2)
    assert curves.cost("code", "usual", 0.5) == pytest.approx(400, rel=0.2)


def test_values_are_chances():
    curves = taught(0.3)

    assert all(0 <= curves.value("math", tier, d / 10) <= 1 for tier in NAMES for d in range(11))
