"""Policies are monotone, cold starts follow the table, and dear tiers are left alone."""

import math

from hypothesis import given
from hypothesis import strategies as st
from tests.plugins.budget.cases import outcome, state

from predawn.plugins.budget.policies import Case
from predawn.plugins.budget.policies.fixed import Fixed
from predawn.plugins.budget.policies.marginal import COLD, Marginal, hull
from predawn.plugins.budget.policies.tiers import Tiers
from predawn.plugins.budget.price import Price
from predawn.plugins.budget.settings import STANDARD_TIERS

NAMES = [tier.name for tier in STANDARD_TIERS]
UNIT = st.floats(0, 1)
OUTCOMES = st.lists(st.tuples(st.sampled_from(NAMES), UNIT, st.none() | UNIT, st.floats(1, 1e5)), max_size=60)


def learnt(rows):
    made = state()
    for at, (tier, difficulty, quality, tokens) in enumerate(rows):
        source = "none" if quality is None else "verdict"
        made.learn(outcome(str(at), tier=tier, difficulty=difficulty, quality=quality, tokens=tokens, source=source))
    return made


def chosen(policy, **case):
    return policy.choose(Case(kind="math", tiers=STANDARD_TIERS, **case)).tier.name


@given(UNIT, UNIT)
def test_under_tiers_a_harder_request_never_gets_less(one, other):
    low, high = sorted([one, other])
    tiers = [chosen(Tiers(), difficulty=difficulty, state=state()) for difficulty in (low, high)]

    assert NAMES.index(tiers[0]) <= NAMES.index(tiers[1])


@given(OUTCOMES, UNIT, st.floats(1e-8, 1), st.floats(1e-8, 1))
def test_a_higher_price_never_buys_more(rows, difficulty, one, other):
    made = learnt([*rows, *[("usual", 0.5, None, 300.0)] * COLD])
    low, high = sorted([one, other])
    costs = []
    for now in (low, high):
        price = Price(1e9, base=math.log(now))
        costs.append(Marginal().choose(Case(difficulty, "math", made, STANDARD_TIERS, price)).expected)

    assert costs[0] >= costs[1]


@given(OUTCOMES, UNIT)
def test_along_the_hull_each_token_gains_less_than_the_one_before(rows, difficulty):
    steps = hull(Case(difficulty, "math", learnt(rows), STANDARD_TIERS))
    rates = [step.rate for step in steps]

    assert rates == sorted(rates, reverse=True)
    assert all(one.tokens <= other.tokens for one, other in zip(steps, steps[1:], strict=False))


def test_a_cold_start_follows_the_table():
    choice = Marginal().choose(Case(0.6, "math", state(), STANDARD_TIERS, Price(100_000)))

    assert choice.tier.name == "hard"
    assert choice.why.startswith("cold start")


def test_a_cold_start_never_spends_many_times_the_target():
    choice = Marginal().choose(Case(0.95, "math", state(), STANDARD_TIERS, Price(300)))

    assert choice.expected <= 8 * 300
    assert "too dear" in choice.why


def test_without_a_price_marginal_is_the_table():
    assert chosen(Marginal(), difficulty=0.9, state=state()) == chosen(Tiers(), difficulty=0.9, state=state())


def test_fixed_gives_everybody_the_same():
    assert {chosen(Fixed("hard"), difficulty=d, state=state()) for d in (0.0, 0.5, 1.0)} == {"hard"}


def test_with_tokens_left_over_doubt_speaks_for_the_dearer_tiers():
    case = Case(0.5, "math", learnt([("usual", 0.5, 0.5, 300.0)]), STANDARD_TIERS)
    sober, hopeful = hull(case), hull(case, optimism=0.5)

    assert hopeful[0].value < sober[0].value
    assert hopeful[1].value > sober[1].value


def test_what_a_tier_shows_at_other_difficulties_counts_where_nothing_else_is_known():
    made = learnt([("easy", 0.95, 0.9, 60.0)] * 60)
    untaught = state()

    assert made.curves.value("math", "easy", 0.55) > untaught.curves.value("math", "easy", 0.55) + 0.2
