"""What is learnt is a function of the newest outcomes: bounded, correctable, and no tenant's but its own."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.plugins.budget.cases import HARD, outcome, state

from predawn.plugins.budget.curves import Curves
from predawn.plugins.budget.features import read
from predawn.plugins.budget.learning import Memory, State
from predawn.plugins.budget.menus import nominal
from predawn.plugins.budget.outcomes import told
from predawn.plugins.budget.settings import STANDARD_TIERS

NAMES = [tier.name for tier in STANDARD_TIERS]


def memory(outcomes=64, states=8):
    return Memory(lambda: Curves(nominal(STANDARD_TIERS)), outcomes=outcomes, states=states)


def shown(made):
    curves = made.curves
    return [
        (round(curves.value("math", tier, d), 6), round(curves.cost("math", tier, d), 3))
        for tier in NAMES
        for d in (0.1, 0.9)
    ] + [made.neighbours.nearest((1, 2, 3, 4, 5, 6))]


def test_no_more_outcomes_are_kept_than_may_be():
    made = state(most=16)
    for at in range(1000):
        made.learn(outcome(str(at), sketch=(at, at + 1, at + 2, at + 3), hardness=0.5, quality=0.5, source="verdict"))

    assert len(made) == 16
    assert len(made.neighbours) == 16
    assert len(made.neighbours._by_hash) <= 4 * 16


def test_states_of_tenants_are_bounded():
    kept = memory(states=4)
    for at in range(100):
        kept.of(f"tenant {at}", "m")

    assert len(kept) == 4


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.floats(0, 1), st.floats(0, 1)), min_size=5, max_size=60))
def test_what_is_forgotten_leaves_no_trace_in_curves_and_neighbours(rows):
    long, short = state(most=4), state(most=4)
    made = [
        outcome(str(at), tier=tier, difficulty=difficulty, quality=quality, hardness=1 - quality, source="verdict")
        for at, (tier, difficulty, quality) in enumerate(rows)
    ]
    for one in made:
        long.learn(one)
    for one in made[-4:]:
        short.learn(one)

    assert _close(shown(long), shown(short))


def _close(one, other):
    return all(a == pytest.approx(b, abs=1e-3) for a, b in zip(one, other, strict=True))


def test_feedback_replaces_what_was_thought_before():
    corrected, right_away = state(), state()
    corrected.learn(outcome("a", quality=0.9, hardness=0.1, source="verdict"))
    corrected.rejudge("a", told(0.0))
    right_away.learn(told(0.0).of(outcome("a")))

    assert _close(shown(corrected), shown(right_away))
    assert len(corrected) == 1


def test_feedback_that_is_repeated_teaches_nothing_more():
    made = state()
    made.learn(outcome("a"))
    made.rejudge("a", told(0.0))
    once = list(made.weights)
    for _ in range(50):
        made.rejudge("a", told(0.0))

    assert made.weights == once
    assert made.judged == 1


def test_of_an_exchange_that_is_not_known_nothing_can_be_told():
    assert state().rejudge("nobody", told(1.0)) is None


def test_requests_that_failed_before_look_harder_afterwards():
    made = state()
    features = read("chat", {"messages": [{"role": "user", "content": "How many apples?"}]})
    before = made.hardness(features)
    for at in range(30):
        made.learn(
            outcome(
                str(at), values=features.values, sketch=features.sketch, hardness=1.0, quality=0.0, source="verdict"
            )
        )

    assert made.hardness(features) > before
    assert made.neighbours.nearest(features.sketch)[0] == pytest.approx(1.0)


def hardness_after(tier, quality, telling=("easy",)):
    """How hard a request looks before and after thirty like it were answered so in a tier."""
    made = State(Curves(nominal(STANDARD_TIERS)), 64, lambda: telling)
    features = read("chat", {"messages": [{"role": "user", "content": HARD}]})
    before, more = made.hardness(features), {"quality": quality, "hardness": 1 - quality, "source": "feedback"}
    for at in range(30):
        made.learn(outcome(str(at), tier=tier, values=features.values, difficulty=before, **more))
    return before, made.hardness(features)


def test_right_answers_of_a_dear_tier_do_not_make_requests_look_easy():
    before, after = hardness_after("hardest", 1.0)

    assert before > 0.8
    assert after > 0.6
    assert hardness_after("easy", 1.0)[1] < 0.1


def test_wrong_answers_make_requests_look_hard_in_any_tier():
    for tier in NAMES:
        before, after = hardness_after(tier, 0.0)

        assert after > before


TENANTS = ("a", "b")
ROWS = st.lists(
    st.tuples(
        st.sampled_from(TENANTS), st.sampled_from(NAMES), st.floats(0, 1), st.lists(st.integers(0, 9), min_size=4)
    ),
    max_size=80,
)


@settings(max_examples=60)
@given(ROWS)
def test_two_tenants_never_share_outcomes(rows):
    together, alone = memory(), {tenant: memory() for tenant in TENANTS}
    for at, (tenant, tier, quality, words) in enumerate(rows):
        sketch = tuple(sorted(set(words))[:16])
        one = outcome(
            str(at), tenant=tenant, tier=tier, sketch=sketch, quality=quality, hardness=1 - quality, source="verdict"
        )
        together.of(tenant, "m").learn(one)
        alone[tenant].of(tenant, "m").learn(one)

    for tenant in TENANTS:
        assert shown(together.of(tenant, "m")) == shown(alone[tenant].of(tenant, "m"))
        assert together.of(tenant, "m").weights == alone[tenant].of(tenant, "m").weights
