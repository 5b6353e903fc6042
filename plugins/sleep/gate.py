"""The gate: sleep only while an upstream is free. Told of every request; the first one sends sleep away at once."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from predawn.plugins.sleep.saturation import Load, LoadLimits, Saturation
from predawn.proxy.clock import Clock

Why: TypeAlias = Literal["busy", "quiet", "throttled", "saturated", "hours", "tokens", "money", "full", "off"]
"""`busy`: a request is in flight. `quiet`: not idle for long enough. `full`: enough calls of ours run already."""
REASONS: tuple[Why, ...] = ("busy", "quiet", "throttled", "saturated", "hours", "tokens", "money", "full", "off")

_SPAN = re.compile(r"\s*(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})\s*")
DAY_MINUTES = 24 * 60


@dataclass(frozen=True, slots=True)
class Closed:
    """Why sleep must wait, for how long at least as far as that is known, and the figures behind it."""

    why: Why
    wait_s: float
    numbers: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Hours:
    """Times of the day at which sleep is allowed, like `22:00-06:00`; no times at all allow it always.

    Raises `ValueError` for what is no time or no time zone.
    """

    def __init__(self, spans: tuple[str, ...] = (), timezone: str = "UTC") -> None:
        try:
            self._zone = ZoneInfo(timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
            raise ValueError(f"{timezone!r} is no time zone; write one like Europe/Berlin or UTC") from exc
        self._spans = tuple(_span(text) for text in spans)

    def wait_s(self, now: float) -> float:
        """Seconds until sleep is allowed, at the wall clock's time `now`; 0 if it is."""
        if not self._spans:
            return 0.0
        local = datetime.fromtimestamp(now, self._zone)
        minute = local.hour * 60 + local.minute
        if any((minute - start) % DAY_MINUTES < length for start, length in self._spans):
            return 0.0
        minutes = min((start - minute) % DAY_MINUTES for start, _ in self._spans)
        return max(1.0, minutes * 60 - local.second)


def _span(text: str) -> tuple[int, int]:
    match = _SPAN.fullmatch(text)
    if match is None or int(match[1]) > 24 or int(match[3]) > 24 or int(match[2]) > 59 or int(match[4]) > 59:
        raise ValueError(f"{text!r} is no span of time; write one like 22:00-06:00")
    start, end = int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])
    if start > DAY_MINUTES or end > DAY_MINUTES:
        raise ValueError(f"{text!r} goes beyond 24:00")
    length = (end - start) % DAY_MINUTES
    return start % DAY_MINUTES, length or DAY_MINUTES


@dataclass(frozen=True, slots=True)
class GateRules:
    """When an upstream counts as free."""

    idle_s: float = 5.0
    hours: tuple[str, ...] = ()
    timezone: str = "UTC"
    calls_per_upstream: int = 1
    load: LoadLimits = field(default_factory=LoadLimits)


@dataclass(slots=True)
class _Upstream:
    """What is known of one upstream."""

    saturation: Saturation
    in_flight: int = 0
    """Requests of people."""
    active_at: float = -math.inf
    """When a person's request last began or ended."""
    calls: list[Callable[[], object]] = field(default_factory=list[Callable[[], object]])
    """How to end each call of ours."""


class Gate:
    """Whether each upstream may be asked while nobody waits. In memory; nothing here awaits."""

    def __init__(self, rules: GateRules, clock: Clock) -> None:
        self._rules = rules
        self._clock = clock
        self._hours = Hours(rules.hours, rules.timezone)
        self._upstreams: dict[str, _Upstream] = {}

    def began(self, upstream: str) -> int:
        """A person's request begins. Ends our calls to the same upstream and returns how many there were."""
        state = self._of(upstream)
        state.in_flight += 1
        return self._interrupted(state)

    def ended(self, upstream: str) -> None:
        """A person's request is over, however it ended."""
        state = self._of(upstream)
        state.in_flight = max(0, state.in_flight - 1)
        state.active_at = self._clock.monotonic()

    def heard(self, upstream: str) -> int:
        """Another machine says that a person's request is in flight there."""
        return self._interrupted(self._of(upstream))

    def refused(self, upstream: str, retry_after_s: float | None = None) -> None:
        """The upstream answered 429, to a person or to us."""
        self._of(upstream).saturation.refused(retry_after_s)

    def answered(self, upstream: str) -> None:
        """A call of ours went well."""
        self._of(upstream).saturation.answered()

    def told(self, upstream: str, load: Load) -> None:
        """The upstream told its load; too much of it ends our calls."""
        state = self._of(upstream)
        state.saturation.told(load)
        if state.saturation.overload is not None and state.calls:
            _end_calls(state)

    def closed(self, upstream: str) -> Closed | None:
        """Why no call may begin now; `None` if one may."""
        state, rules = self._of(upstream), self._rules
        now = self._clock.monotonic()
        if state.in_flight:
            return Closed("busy", rules.idle_s, {"in_flight": state.in_flight})
        idle_s = now - state.active_at
        if idle_s < rules.idle_s:
            return Closed("quiet", rules.idle_s - idle_s, {"idle_s": round(idle_s, 3), "needed_s": rules.idle_s})
        wait_s = self._hours.wait_s(self._clock.now())
        if wait_s:
            return Closed("hours", wait_s, {"hours": list(rules.hours), "timezone": rules.timezone})
        if (throttled_s := state.saturation.throttled_s) > 0:
            return Closed("throttled", throttled_s, {})
        if (overload := state.saturation.overload) is not None:
            return Closed("saturated", Saturation.LOAD_COUNTS_FOR_S, overload)
        if len(state.calls) >= rules.calls_per_upstream:
            return Closed("full", 1.0, {"calls": len(state.calls)})
        return None

    def enter(self, upstream: str, end: Callable[[], object]) -> None:
        """A call of ours begins; `end` ends it at once and is called at most once."""
        self._of(upstream).calls.append(end)

    def leave(self, upstream: str, end: Callable[[], object]) -> None:
        """A call of ours is over."""
        calls = self._of(upstream).calls
        if end in calls:
            calls.remove(end)

    def calls(self, upstream: str) -> int:
        """Calls of ours in flight."""
        return len(self._of(upstream).calls)

    @property
    def idle_s(self) -> float:
        """For how long nobody must have been answered before a call may begin."""
        return self._rules.idle_s

    @property
    def is_calling(self) -> bool:
        """True while a call of ours is in flight anywhere."""
        return any(state.calls for state in self._upstreams.values())

    @property
    def busy(self) -> list[str]:
        """Upstreams that answer a person in this process just now."""
        return [name for name, state in self._upstreams.items() if state.in_flight]

    @property
    def upstreams(self) -> list[str]:
        return list(self._upstreams)

    def _of(self, upstream: str) -> _Upstream:
        state = self._upstreams.get(upstream)
        if state is None:
            state = self._upstreams[upstream] = _Upstream(Saturation(self._clock, self._rules.load))
        return state

    def _interrupted(self, state: _Upstream) -> int:
        state.active_at = self._clock.monotonic()
        return _end_calls(state) if state.calls else 0


def _end_calls(state: _Upstream) -> int:
    ending, state.calls = state.calls, []
    for end in ending:
        end()
    return len(ending)
