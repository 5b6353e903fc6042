"""How busy an upstream is: what it says by refusing (429), and what vLLM's metrics tell of its queue."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from predawn.proxy.clock import Clock

MOST_METRICS_BYTES = 4 << 20
_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{[^\n]*\})?[ \t]+(\S+)(?:[ \t]+-?\d+)?[ \t]*$", re.MULTILINE)
_WAITING = frozenset({"vllm:num_requests_waiting", "sglang:num_queue_reqs", "llamacpp:requests_deferred"})
_CACHE = frozenset({"vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage"})


@dataclass(frozen=True, slots=True)
class Load:
    """What an upstream tells of itself; `kv_used` is a share from 0 to 1."""

    waiting: float = 0.0
    kv_used: float = 0.0


@dataclass(frozen=True, slots=True)
class LoadLimits:
    """More than this is too much to sleep beside."""

    waiting: float = 0.0
    kv_used: float = 0.9


def read_load(metrics: str) -> Load | None:
    """The load in a page of Prometheus metrics, engines added up; `None` if it tells none."""
    waiting, cache = 0.0, 0.0
    found = False
    for name, number in _SAMPLE.findall(metrics[:MOST_METRICS_BYTES]):
        if name not in _WAITING and name not in _CACHE:
            continue
        value = _number(number)
        if value is None:
            continue
        found = True
        if name in _WAITING:
            waiting += value
        else:
            cache = max(cache, value)
    return Load(waiting, cache) if found else None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


class Saturation:
    """One upstream's refusals and load. After each refusal in a row it is left alone twice as long."""

    FIRST_S = 5.0
    LONGEST_S = 600.0
    FORGETS_AFTER_S = 1800.0
    LOAD_COUNTS_FOR_S = 15.0

    def __init__(self, clock: Clock, limits: LoadLimits) -> None:
        self._clock = clock
        self._limits = limits
        self._refusals = 0
        self._refused_at = -math.inf
        self._until = -math.inf
        self._load: Load | None = None
        self._load_at = -math.inf

    def refused(self, retry_after_s: float | None = None) -> float:
        """A 429 came, to us or to a client. Returns how long the upstream is left alone now."""
        now = self._clock.monotonic()
        if now - self._refused_at > self.FORGETS_AFTER_S:
            self._refusals = 0
        if now >= self._until:  # further refusals while it is left alone say nothing new
            self._refusals += 1
        self._refused_at = now
        wait_s = min(self.FIRST_S * 2 ** min(self._refusals - 1, 10), self.LONGEST_S)
        if retry_after_s is not None and math.isfinite(retry_after_s):
            wait_s = min(max(wait_s, retry_after_s), self.LONGEST_S)
        self._until = max(self._until, now + wait_s)
        return self._until - now

    def answered(self) -> None:
        """A call of ours went well."""
        self._refusals = max(0, self._refusals - 1)

    def told(self, load: Load) -> None:
        """The upstream told its load."""
        self._load, self._load_at = load, self._clock.monotonic()

    @property
    def throttled_s(self) -> float:
        """How much longer the upstream is left alone for its refusals."""
        return max(0.0, self._until - self._clock.monotonic())

    @property
    def overload(self) -> dict[str, float] | None:
        """The figures that are too high, if any are and are not too old to count."""
        load, limits = self._load, self._limits
        if load is None or self._clock.monotonic() - self._load_at > self.LOAD_COUNTS_FOR_S:
            return None
        high: dict[str, float] = {}
        if load.waiting > limits.waiting:
            high["waiting"] = load.waiting
        if load.kv_used >= limits.kv_used:
            high["kv_used"] = load.kv_used
        return high or None
