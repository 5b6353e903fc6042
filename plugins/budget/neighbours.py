"""The nearest past outcomes: requests that share many words with this one were about as hard.

A request is a sketch, the sixteen smallest hashes of its words; how many of them two requests share estimates how
similar their sets of words are (Broder's MinHash). An inverted index from hash to outcomes finds the nearest.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Final

from predawn.plugins.budget.features import SKETCH

LEAST_SHARED: Final = 4
"""Hashes that two requests must share to say anything of one another."""
MOST_PER_HASH: Final = 16
"""Outcomes looked at for each hash, the newest: words that all requests have tell nothing."""


class Neighbours:
    """How hard past requests were, by what they were about."""

    __slots__ = ("_by_hash", "_known")

    def __init__(self) -> None:
        self._by_hash: dict[int, dict[str, None]] = {}
        self._known: dict[str, tuple[float, float, tuple[int, ...]]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def add(self, ident: str, sketch: Sequence[int], hardness: float, weight: float) -> None:
        """Remember an outcome; one of the same name is forgotten first."""
        self.drop(ident)
        self._known[ident] = (hardness, weight, tuple(sketch))
        for one in sketch:
            self._by_hash.setdefault(one, {})[ident] = None

    def drop(self, ident: str) -> None:
        """Forget an outcome, if it is known."""
        known = self._known.pop(ident, None)
        if known is None:
            return
        for one in known[2]:
            found = self._by_hash.get(one)
            if found is not None:
                found.pop(ident, None)
                if not found:
                    del self._by_hash[one]

    def nearest(self, sketch: Sequence[int]) -> tuple[float, float]:
        """Mean hardness of the nearest outcomes, and how much they weigh in all; (0, 0) if there are none."""
        shared: dict[str, int] = {}
        by_hash = self._by_hash
        for one in sketch:
            found = by_hash.get(one)
            if found is None:
                continue
            for ident in islice(reversed(found), MOST_PER_HASH):
                shared[ident] = shared.get(ident, 0) + 1
        total = weights = 0.0
        size = max(len(sketch), 1)
        least = min(LEAST_SHARED, size)
        for ident, count in shared.items():
            if count >= least:
                hardness, weight, other = self._known[ident]
                similarity = count / max(size, len(other), SKETCH // 2)
                weight *= similarity * similarity
                total += weight * hardness
                weights += weight
        return (total / weights, weights) if weights else (0.0, 0.0)
