"""Ceilings: whatever is asked for and in whatever order, no more is held and spent than there may be."""

import contextlib
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predawn.plugins import RequestError
from predawn.plugins.budget.ceilings import Ceilings, Holdings
from predawn.plugins.budget.settings import CeilingSettings
from predawn.plugins.testing import ManualClock

WISH = st.tuples(
    st.sampled_from(["a", "b"]),
    st.sampled_from([None, "k1", "k2"]),
    st.integers(1, 64),
    st.integers(1, 8),
    st.none() | st.integers(1, 10_000),
    st.integers(1, 4),
    st.floats(0, 1),
    st.booleans(),
)
LIMIT = st.none() | st.integers(1, 50_000)


@settings(max_examples=200)
@given(LIMIT, LIMIT, LIMIT, LIMIT, st.lists(WISH, max_size=40))
def test_a_budget_never_exceeds_its_ceilings(request_tokens, key, tenant, everybody, wishes):
    limits = CeilingSettings(
        request_tokens=request_tokens, key_tokens_per_day=key, tenant_tokens_per_day=tenant, tokens_per_day=everybody
    )
    ceilings = Ceilings(limits, ManualClock())
    spent = {}
    running = []
    for whose, key_id, samples, rounds, answer, choices, share, ends in wishes:
        fitted = ceilings.fit(whose, key_id, samples, rounds, answer, choices)

        assert fitted.samples <= min(samples, limits.samples)
        assert fitted.rounds <= min(rounds, limits.rounds)
        if answer is not None and fitted.answer_tokens is not None:
            assert fitted.answer_tokens <= answer
        if fitted.held is None:
            continue
        worst = fitted.samples * fitted.rounds * choices * fitted.answer_tokens
        assert fitted.held.tokens == worst
        if request_tokens is not None:
            assert worst <= request_tokens
        running.append((fitted.held, whose, key_id, int(worst * share)))
        for place in (("all",), (whose,), (whose, key_id)):
            spent[place] = spent.get(place, 0) + worst
        if ends:
            held, who, its_key, used = running.pop(0)
            held.settle(used)
            for place in (("all",), (who,), (who, its_key)):
                spent[place] += used - held.tokens
        assert spent[("all",)] <= (everybody or 1 << 60)
        assert spent[(whose,)] <= (tenant or 1 << 60)
        assert key_id is None or spent[(whose, key_id)] <= (key or 1 << 60)


def test_what_was_held_and_not_used_is_free_again():
    ceilings = Ceilings(CeilingSettings(tokens_per_day=1000), ManualClock())
    first = ceilings.fit("a", None, 1, 1, 900)
    refused = ceilings.fit("a", None, 1, 1, 900)
    first.held.settle(100)
    second = ceilings.fit("a", None, 1, 1, 900)

    assert refused.answer_tokens == 100
    assert second.answer_tokens == 800


def test_a_full_day_is_refused_until_midnight():
    ceilings = Ceilings(CeilingSettings(key_tokens_per_day=100), ManualClock(start=1_700_000_000.0))
    ceilings.fit("a", "k", 1, 1, 100)
    refused = ceilings.fit("a", "k", 1, 1, 100)

    assert "key_tokens_per_day" in refused.refusal.message
    assert refused.refusal.headers["retry-after"] == str(86_400 - 1_700_000_000 % 86_400)
    assert ceilings.fit("a", "other", 1, 1, 100).held.tokens == 100
    assert ceilings.fit("b", "k", 1, 1, 100).held.tokens == 100


async def test_a_new_day_begins_at_nothing():
    clock = ManualClock()
    ceilings = Ceilings(CeilingSettings(tokens_per_day=100), clock)
    yesterday = ceilings.fit("a", None, 1, 1, 100)
    await clock.advance(86_400)
    today = ceilings.fit("a", None, 1, 1, 100)
    yesterday.held.settle(100)

    assert today.held.tokens == 100
    assert ceilings.day - next(iter(ceilings.take_unwritten())).day == timedelta(days=1)


def test_width_and_depth_shrink_before_answers_do():
    ceilings = Ceilings(CeilingSettings(request_tokens=1000), ManualClock())
    fitted = ceilings.fit("a", None, 8, 2, 300)

    assert (fitted.samples * fitted.rounds, fitted.answer_tokens, fitted.why) == (3, 300, "request_tokens")


@pytest.mark.parametrize("limit", [{"request_tokens": 500}, {"tokens_per_day": 500}])
def test_calls_beyond_the_grant_are_held_as_well_or_refused(limit):
    held = Ceilings(CeilingSettings(**limit), ManualClock()).fit("a", None, 3, 1, 100).held
    taken = [held.extend(2), held.extend(1), held.extend(2, output_tokens=40)]
    with pytest.raises(RequestError) as raised:
        held.extend(1)

    assert taken == [0, 100, 80]
    assert held.tokens == 480
    assert (raised.value.status, raised.value.code) == (429, "budget_exceeded")


async def test_what_a_key_has_no_room_for_is_held_nowhere():
    class Full:
        async def extend(self, calls, prompt_tokens, output_tokens):
            raise RequestError(429, "full")

    ceilings = Ceilings(CeilingSettings(tokens_per_day=500), ManualClock())
    held = ceilings.fit("a", None, 1, 1, 100).held
    with pytest.raises(RequestError):
        await Holdings(held, Full()).extend(3, None, None)

    assert held.tokens == 100
    assert ceilings.fit("a", None, 1, 1, 400).answer_tokens == 400


@given(LIMIT, LIMIT, st.lists(st.tuples(st.integers(0, 5), st.none() | st.integers(1, 500)), max_size=20))
def test_no_request_holds_more_than_its_ceilings_whatever_it_asks_for_later(request_tokens, day, asked):
    limits = CeilingSettings(request_tokens=request_tokens, tokens_per_day=day)
    held = Ceilings(limits, ManualClock()).fit("a", None, 4, 2, 100).held
    for calls, tokens in asked if held is not None else ():
        with contextlib.suppress(RequestError):
            held.extend(calls, tokens)

        assert held.tokens <= min(request_tokens or 1 << 60, day or 1 << 60)


def test_a_probe_needs_room_for_an_answer_too():
    ceilings = Ceilings(CeilingSettings(tokens_per_day=100), ManualClock())
    probe = ceilings.hold("a", None, 24)
    probe.settle(24)

    assert ceilings.fit("a", None, 1, 1, 100).answer_tokens == 76
    assert ceilings.hold("a", None, 24) is None


def test_what_other_machines_spent_counts():
    ceilings = Ceilings(CeilingSettings(tenant_tokens_per_day=100), ManualClock())
    ceilings.load(ceilings.day, [("a", "k", 60), ("a", "", 20), ("b", "k", 1000)])

    assert ceilings.fit("a", None, 1, 1, 100).answer_tokens == 20


@pytest.mark.parametrize("samples", [1, 200])
def test_without_ceilings_for_tokens_only_the_numbers_are_limited(samples):
    fitted = Ceilings(CeilingSettings(), ManualClock()).fit("a", None, samples, 1, None)

    assert (fitted.samples, fitted.held, fitted.answer_tokens) == (min(samples, 32), None, None)
