"""When a second request is worth sending."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from predawn.plugins.sampling.hedging import ENOUGH, KEPT, FirstTokens


def test_nothing_is_sent_twice_while_little_is_known() -> None:
    seen = FirstTokens()
    for _ in range(ENOUGH - 1):
        seen.took("m", 0.1)

    assert seen.hedge_after_s("m") == inf


def test_the_second_is_sent_after_the_time_in_which_95_of_100_began() -> None:
    seen = FirstTokens()
    for number in range(1, 101):
        seen.took("m", number / 100)

    assert seen.hedge_after_s("m") == 0.95
    assert seen.hedge_after_s("other") == inf


def test_what_was_long_ago_is_forgotten() -> None:
    seen = FirstTokens()
    for seconds in [9.0] * KEPT + [0.1] * KEPT:
        seen.took("m", seconds)

    assert seen.hedge_after_s("m") == 0.1


@given(st.lists(st.floats(0, 100), min_size=ENOUGH, max_size=KEPT))
def test_no_more_than_one_in_twenty_is_slower(times: list[float]) -> None:
    seen = FirstTokens()
    for seconds in times:
        seen.took("m", seconds)
    slower = sum(seconds > seen.hedge_after_s("m") for seconds in times)

    assert slower <= max(1, len(times) // 20 + 1)
