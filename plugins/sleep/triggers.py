"""What makes a context a candidate for sleep, and how soon."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

Trigger: TypeAlias = Literal[
    "asked", "registered", "changed", "seen", "tool_calls", "truncation", "quiet", "schedule", "resumed"
]

PRIORITIES: dict[Trigger, int] = {
    "asked": 10,  # somebody watches a progress bar
    "tool_calls": 20,  # the tool runs for seconds, the next request comes right after it
    "truncation": 30,  # what is not noted now is lost
    "changed": 40,
    "registered": 50,
    "resumed": 60,
    "seen": 70,
    "quiet": 80,
    "schedule": 100,
}
"""Smaller goes first."""


class Key(NamedTuple):
    """A context of a tenant."""

    tenant: str
    context_id: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A context that something happened to."""

    key: Key
    version: int
    trigger: Trigger
    at: float
    """Monotonic seconds."""

    @property
    def priority(self) -> int:
        return PRIORITIES[self.trigger]


class Candidates:
    """Contexts that wait for a decision: each once, with its most urgent trigger; a bounded number of them.

    When there is no room, the least urgent and among those the oldest is let go; a later trigger brings it back.
    """

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._by_priority: dict[int, OrderedDict[Key, Candidate]] = {
            priority: OrderedDict() for priority in sorted(set(PRIORITIES.values()))
        }
        self._waiting: dict[Key, Candidate] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def get(self, key: Key) -> Candidate | None:
        return self._waiting.get(key)

    def add(self, candidate: Candidate) -> None:
        known = self._waiting.get(candidate.key)
        if known is not None:
            if known.version > candidate.version:
                return  # about what is no more
            if known.version == candidate.version and known.priority <= candidate.priority:
                return
            if known.priority < candidate.priority:
                candidate = Candidate(candidate.key, candidate.version, known.trigger, known.at)
            self.drop(candidate.key)
        self._waiting[candidate.key] = candidate
        self._by_priority[candidate.priority][candidate.key] = candidate
        if len(self._waiting) > self._most:
            worst = next(found for found in reversed(self._by_priority.values()) if found)
            del self._waiting[worst.popitem(last=False)[0]]

    def drop(self, key: Key) -> None:
        known = self._waiting.pop(key, None)
        if known is not None:
            del self._by_priority[known.priority][key]

    def in_order(self) -> list[Candidate]:
        """The most urgent first, then the oldest."""
        return [candidate for found in self._by_priority.values() for candidate in found.values()]

    def oldest_s(self, now: float) -> float:
        """How long the oldest one has waited."""
        firsts = (next(iter(found.values())) for found in self._by_priority.values() if found)
        return max((now - candidate.at for candidate in firsts), default=0.0)


class Conversations:
    """When each context was last used, to see which went quiet; bounded, the longest unused ones are forgotten."""

    def __init__(self, quiet_s: float, most: int = 10_000) -> None:
        self._quiet_s = quiet_s
        self._most = most
        self._used: OrderedDict[Key, tuple[float, int]] = OrderedDict()

    def used(self, key: Key, version: int, now: float) -> None:
        self._used[key] = (now, version)
        self._used.move_to_end(key)
        if len(self._used) > self._most:
            self._used.popitem(last=False)

    def gone_quiet(self, now: float) -> list[tuple[Key, int]]:
        """Those quiet for `quiet_s` since; each is told once."""
        found: list[tuple[Key, int]] = []
        while self._used:
            key, (used_at, version) = next(iter(self._used.items()))
            if now - used_at < self._quiet_s:
                break
            del self._used[key]
            found.append((key, version))
        return found

    def drop(self, key: Key) -> None:
        self._used.pop(key, None)


class Schedule:
    """Times of the day, like `03:30`, at which everything that is known is looked at again."""

    def __init__(self, times: Sequence[str], timezone: str = "UTC") -> None:
        self._zone = ZoneInfo(timezone)
        self._minutes = sorted({_minute(text) for text in times})
        self._last: float | None = None

    def is_due(self, now: float) -> bool:
        """True once for each time that passed since the last call; never on the first call."""
        last, self._last = self._last, now
        return last is not None and any(last < due <= now for due in self._times(last, now))

    def _times(self, last: float, now: float) -> list[float]:
        if not self._minutes:
            return []
        day = datetime.fromtimestamp(max(last, now - 2 * 86_400), self._zone).replace(
            hour=0, minute=0, second=0, microsecond=0
        )
        days = [day + timedelta(days=n) for n in range(3)]
        return [one.replace(hour=m // 60, minute=m % 60).timestamp() for one in days for m in self._minutes]


def nears_window(tokens: int, window_tokens: int | None, share: float = 0.8) -> bool:
    """True where the conversation will soon be cut: time to consolidate what is dropped first."""
    return window_tokens is not None and tokens >= window_tokens * share


def _minute(text: str) -> int:
    match = re.fullmatch(r"\s*(\d{1,2}):(\d{2})\s*", text)
    if match is None or int(match[1]) > 23 or int(match[2]) > 59:
        raise ValueError(f"{text!r} is no time of the day; write one like 03:30")
    return int(match[1]) * 60 + int(match[2])
