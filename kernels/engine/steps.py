"""How long an engine's steps take and how many choices they serve, as sums that can be told now and then."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final, TypeAlias

SECONDS: Final = (1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.1, 0.5, 2.0)
CHOICES: Final = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0)
"""Upper limits of the buckets; those of the metrics made of them."""
Told: TypeAlias = dict[str, tuple[list[int], float]]
"""By what was measured, how often it fell into which bucket, and the sum; both grow from the engine's start."""


class Spread:
    """How often which size was seen."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    @property
    def told(self) -> tuple[list[int], float]:
        return self._counts.copy(), self._total


class Steps:
    """The steps of one engine: 0.4 µs each."""

    __slots__ = ("batch", "decode", "prefill")

    def __init__(self) -> None:
        self.prefill = Spread(SECONDS)
        """Chunks of prompts."""
        self.decode = Spread(SECONDS)
        """Next tokens of a batch, sampling included."""
        self.batch = Spread(CHOICES)
        """Choices in such a batch."""

    def told(self) -> Told:
        return {"prefill": self.prefill.told, "decode": self.decode.told, "batch": self.batch.told}
