"""What is known of a sample while it grows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.plugins.calls import TokenLogprob
from predawn.plugins.sampling.voices import WINDOW, Curve

values = st.lists(st.floats(-20, 0), max_size=4 * WINDOW)


@given(values, st.integers(1, 50))
def test_a_curve_read_bit_by_bit_is_the_curve_of_the_whole(told: list[float], step: int) -> None:
    tokens = [TokenLogprob("t", value) for value in told]
    curve = Curve()
    for end in range(0, len(tokens) + step, step):
        curve.read(tokens[:end])
    windows = [told[start : start + WINDOW] for start in range(len(told) - WINDOW + 1)]

    assert curve.mean == (pytest.approx(sum(told) / len(told)) if told else None)
    assert curve.worst == (pytest.approx(min(sum(one) / WINDOW for one in windows), abs=1e-6) if windows else None)


def test_an_impossible_token_does_not_make_everything_infinite() -> None:
    curve = Curve()
    curve.read([TokenLogprob("t", float("-inf"))])

    assert curve.mean == -100.0


def test_without_log_probabilities_nothing_is_known() -> None:
    curve = Curve()
    curve.read(None)

    assert curve.mean is None
    assert curve.worst is None
