"""Is it worth it? Every decision carries its numbers."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.plugins.sleep.worth import (
    History,
    Plan,
    Prices,
    WorthRules,
    cost_tokens,
    decide,
    expected_uses,
    keeps_warm,
    saved_tokens,
)

RULES = WorthRules()
PLAN = Plan(passes=4, drafts=1, notes_tokens=500)
USED = History(tokens=2000, uses=20, age_s=36_000, idle_s=600, predictability=0.6, plain_tokens=800, noted_tokens=200)


def test_a_context_in_use_pays():
    decision = decide(USED, PLAN, RULES)

    assert (decision.sleeps, decision.reason) == (True, "pays")
    assert decision.numbers["balance_tokens"] == pytest.approx(
        decision.numbers["gain_tokens"] - decision.numbers["cost_tokens"], rel=1e-4
    )
    assert decision.numbers["saved_tokens_per_hit"] == 600
    assert decision.numbers["saved_is_measured"] is True


def test_the_break_even_is_that_of_the_paper():
    """N* = sleep tokens / (t x saved tokens x p_hit), if notes themselves cost nothing to read."""
    rules = replace(RULES, prices=Prices(ratio=10, cached_weight=0))
    decision = decide(USED, PLAN, rules)
    cost = cost_tokens(2000, PLAN, rules.prices)

    assert decision.numbers["break_even_uses"] == pytest.approx(cost / (10 * 600 * 0.6), rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"uses": 0, "age_s": 10 * 86_400, "idle_s": None}, "does_not_pay"),
        ({"idle_s": 36_000 * 100}, "does_not_pay"),
        ({"predictability": 0.1}, "unpredictable"),
        ({"tokens": 20}, "too_short"),
        ({"left_s": 0}, "expires"),
        ({"noted_tokens": 900}, "does_not_pay"),
        ({"left_s": 10}, "does_not_pay"),
    ],
)
def test_what_does_not_pay_is_left(changes, reason):
    decision = decide(replace(USED, **changes), PLAN, RULES)

    assert (decision.sleeps, decision.reason) == (False, reason)


def test_a_policy_goes_before_the_numbers_but_keeps_them():
    poor = replace(USED, predictability=0.01)
    always, never = decide(poor, PLAN, RULES, "always"), decide(USED, PLAN, RULES, "off")

    assert (always.sleeps, always.reason) == (True, "policy_always")
    assert (never.sleeps, never.reason) == (False, "policy_off")
    assert always.numbers["balance_tokens"] < 0 < never.numbers["balance_tokens"]
    assert always.as_json()["policy"] == "always"


def test_a_new_registered_context_counts_on_its_prior():
    new = History(tokens=2000, uses=0, age_s=0)

    assert expected_uses(new, RULES) == pytest.approx(RULES.prior_uses)


def test_uses_fade_once_it_is_quiet():
    busy = expected_uses(replace(USED, idle_s=0), RULES)
    quiet = expected_uses(replace(USED, idle_s=16 * 1800), RULES)

    assert quiet == pytest.approx(busy / 4)


def test_saved_tokens_are_measured_where_they_can_be():
    assert saved_tokens(USED, RULES) == (600, True)
    assert saved_tokens(replace(USED, noted_tokens=None), RULES) == (640, False)
    assert saved_tokens(replace(USED, plain_tokens=None), RULES) == (500, False)


@given(st.integers(0, 1000), st.floats(0, 1e7), st.floats(0, 1e7), st.floats(0, 1))
def test_more_uses_are_never_worth_less(uses, age, idle, predictability):
    history = replace(USED, uses=uses, age_s=age, idle_s=None, predictability=predictability)
    more = replace(history, uses=uses + 1)

    assert expected_uses(more, RULES) >= expected_uses(history, RULES) >= 0
    assert decide(more, PLAN, RULES).numbers["cost_tokens"] == decide(history, PLAN, RULES).numbers["cost_tokens"]
    assert expected_uses(replace(history, idle_s=idle), RULES) >= 0


def test_more_work_costs_more():
    costs = [
        cost_tokens(2000, plan, RULES.prices)
        for plan in (
            replace(PLAN, passes=1, checks=False, warms=False),
            replace(PLAN, passes=1),
            PLAN,
            replace(PLAN, drafts=5),
            replace(PLAN, drafts=5, questions=5),
        )
    ]

    assert costs == sorted(costs)
    assert len(set(costs)) == len(costs)


def test_a_prefix_is_kept_warm_while_uses_are_likely():
    often, _ = keeps_warm(1 / 300, 240, 5000, RULES.prices)
    seldom, numbers = keeps_warm(1 / 86_400, 240, 5000, RULES.prices)

    assert often
    assert not seldom
    assert numbers["gain_tokens"] < numbers["cost_tokens"]


def test_nothing_in_a_decision_is_unfit_for_json():
    import json

    json.dumps(decide(replace(USED, uses=0, plain_tokens=None), PLAN, RULES).as_json(), allow_nan=False)
