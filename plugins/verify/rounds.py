"""Answers that are read beside their way, in rounds: the more there are, the rarer, and the more at a time.

To read what came costs some 10 µs however little it is, and 3 more for each event. A few answers are read as soon as
something has come; of 500, each five times a second, which is half the work. Reading stops after `SLICE_S` in each turn
of the event loop: what is on its way to a client goes first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import perf_counter
from typing import Protocol

SLICE_S = 0.001
EACH_S = 0.0005
"""By how much each answer that is being read makes the others wait."""
LONGEST_S = 0.2
TURN_EACH_S, LONGEST_TURN_S = 0.00006, 0.03
"""The same where a client waits for what is read."""


class Behind(Protocol):
    """An answer of which something is not read yet."""

    def read(self) -> bool:
        """Read a little; whether there is more."""
        ...


class Rounds:
    """Gives answers their turns to be read."""

    def __init__(self, each_s: float = EACH_S, longest_s: float = LONGEST_S) -> None:
        self._each_s = each_s
        self._longest_s = longest_s
        self.open = 0
        """Answers that are being read along."""
        self._behind: deque[Behind] = deque()
        self._is_called = False

    def add(self, answer: Behind) -> None:
        """Something has come of an answer; add none that is waiting already."""
        self._behind.append(answer)
        if self._is_called:
            return
        self._is_called = True
        pause_s = min(self.open * self._each_s, self._longest_s)
        loop = asyncio.get_running_loop()
        if pause_s < SLICE_S:
            loop.call_soon(self._read)
        else:
            loop.call_later(pause_s, self._read)

    def _read(self) -> None:
        behind = self._behind
        until = perf_counter() + SLICE_S
        try:
            while behind:
                answer = behind.popleft()
                if answer.read():
                    behind.append(answer)
                if perf_counter() > until:
                    break
        finally:  # a verifier's own boundary may raise, which is nothing to the others
            self._is_called = bool(behind)
            if behind:
                asyncio.get_running_loop().call_soon(self._read)
