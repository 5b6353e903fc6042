"""A circuit breaker: after failures in a row an upstream is left alone, then one request tries whether it is back."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal, TypeAlias

from predawn.proxy.clock import Clock
from predawn.proxy.settings import BreakerSettings

log = logging.getLogger("predawn.breaker")
State: TypeAlias = Literal["closed", "half_open", "open"]
STATE_VALUES: dict[State, int] = {"closed": 0, "half_open": 1, "open": 2}


class Breaker:
    """closed --failures in a row--> open --cool_s--> half_open --success--> closed, --failure--> open."""

    __slots__ = ("_changed", "_clock", "_failures", "_name", "_opened_at", "_settings", "state")

    def __init__(
        self, name: str, settings: BreakerSettings, clock: Clock, changed: Callable[[State], None] = lambda _state: None
    ) -> None:
        self.state: State = "closed"
        self._name = name
        self._settings = settings
        self._clock = clock
        self._changed = changed
        self._failures = 0
        self._opened_at = 0.0

    @property
    def available(self) -> bool:
        """True if a request may be sent now."""
        if self.state == "open":
            return self._clock.monotonic() - self._opened_at >= self._settings.cool_s
        return self.state == "closed"

    def begin(self) -> None:
        """A request is on its way; after the pause it is the probe, and others wait for its result."""
        if self.state == "open":
            self._set("half_open")

    def succeeded(self) -> None:
        self._failures = 0
        if self.state != "closed":
            self._set("closed")

    def failed(self) -> None:
        self._failures += 1
        if self.state == "half_open" or (self.state == "closed" and self._failures >= self._settings.failures):
            self._opened_at = self._clock.monotonic()
            self._set("open")

    def abandoned(self) -> None:
        """The request ended without telling anything of the upstream; a probe gives its place to the next one."""
        if self.state == "half_open":
            self._opened_at = self._clock.monotonic() - self._settings.cool_s
            self._set("open")

    def _set(self, state: State) -> None:
        self.state = state
        self._changed(state)
        log.warning("breaker of upstream %s is %s", self._name, state)

    def __repr__(self) -> str:
        return f"<Breaker {self._name} {self.state}>"
