"""When a second request is worth sending: after the time in which 95 of 100 have begun to answer."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Final

KEPT: Final = 200
"""Requests of one alias that are remembered."""
ENOUGH: Final = 20
"""Fewer say nothing of a tail: until then nothing is sent twice."""
MOST_ALIASES: Final = 1000
SHARE: Final = 0.95


class FirstTokens:
    """How long the first tokens of each alias took lately."""

    def __init__(self) -> None:
        self._seen: dict[str, deque[float]] = {}
        self._p95: dict[str, float] = {}

    def took(self, alias: str, seconds: float) -> None:
        """The first token came after so long; of one that was given up, it had not come for so long."""
        seen = self._seen.get(alias)
        if seen is None:
            if len(self._seen) >= MOST_ALIASES:
                return
            seen = self._seen[alias] = deque(maxlen=KEPT)
        seen.append(seconds)
        self._p95.pop(alias, None)

    def hedge_after_s(self, alias: str) -> float:
        """The 95th percentile; infinite while too few are known."""
        found = self._p95.get(alias)
        if found is None:
            seen = self._seen.get(alias)
            if seen is None or len(seen) < ENOUGH:
                return inf
            found = self._p95[alias] = sorted(seen)[int(SHARE * (len(seen) - 1) + 0.5)]
        return found
