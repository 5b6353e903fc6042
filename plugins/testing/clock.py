"""Time moved by hand: nothing sleeps, and what would have slept wakes in the order in which it was due."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count

TURNS = 32
"""Rounds of the event loop that woken tasks get before time moves on; enough for a chain of so many awaits."""


class ManualClock:
    """A `Clock` whose time stands still until `advance` moves it."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._start = start
        self._elapsed = 0.0
        self._order = count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._start + self._elapsed

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock was advanced that far; a sleep of zero gives others a turn."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, next(self._order), woken))
        await woken

    @property
    def next_due(self) -> float | None:
        """When the first sleeper is due, on the monotonic clock; `None` if nobody sleeps."""
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)  # cancelled in its sleep
        return self._sleepers[0][0] if self._sleepers else None

    async def advance(self, seconds: float) -> None:
        """Move time on. Each sleeper that falls due runs at its own time, and may sleep again, before the next one."""
        if seconds < 0:
            raise ValueError("time does not run backwards")
        end = self._elapsed + seconds
        await settle()
        while (due := self.next_due) is not None and due <= end:
            await self._wake(due)
        self._elapsed = end

    async def jump(self) -> bool:
        """Move time on to the next sleeper and let it run; False if nobody sleeps."""
        due = self.next_due
        if due is not None:
            await self._wake(due)
        return due is not None

    async def _wake(self, due: float) -> None:
        self._elapsed = max(self._elapsed, due)
        _, _, woken = heapq.heappop(self._sleepers)
        woken.set_result(None)
        await settle()

    def __repr__(self) -> str:
        sleeping = sum(not woken.done() for _, _, woken in self._sleepers)
        return f"<ManualClock {self._elapsed:g} s, {sleeping} asleep>"


async def settle() -> None:
    """Let every task that can run do so until all of them wait for something."""
    for _ in range(TURNS):
        await asyncio.sleep(0)
