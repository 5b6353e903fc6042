"""The benchmark's own arithmetic."""

from __future__ import annotations

import pytest
from tests.benchmarks.sampling.overhead import _fitted, machinery, wait_at


def test_a_chunk_waits_for_the_rest_of_the_turn_in_which_it_comes() -> None:
    assert wait_at([1.0] * 100, 0.5) == pytest.approx(0.5)
    assert wait_at([1.0] * 100, 0.99) == pytest.approx(0.99)
    assert wait_at([0.1] * 990 + [10.0], 0.99) > 8


def test_what_belongs_to_request_sample_and_chunk_is_told_apart() -> None:
    rows = [([1.0, s, s * c], 100 + 20 * s + 3 * s * c) for s in (2, 4, 8) for c in (10.0, 50.0)]

    assert _fitted(rows) == pytest.approx((100, 20, 3))


async def test_the_machinery_can_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.benchmarks.sampling.overhead.SAMPLES", (2, 3, 4))
    monkeypatch.setattr("tests.benchmarks.sampling.overhead.CHUNKS", (2, 8))
    monkeypatch.setattr("tests.benchmarks.sampling.overhead.REPEATS", 1)

    assert set(await machinery()) == {"per_request_us", "per_sample_us", "per_chunk_us"}
