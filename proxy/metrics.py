"""The metrics of the proxy at work: what the request path needs is looked up beforehand and kept.

`metrics.traffic(...)` gives the meters of one kind of request; an exchange calls their `observe` once, at its end.
Label values come from the settings and from the fixed sets of declared.py, never from a request: a model that is no
alias counts as `other`, so clients cannot make series.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector

from predawn.proxy.declared import (
    CALL_OUTCOMES,
    HOOK_REASONS,
    LANES,
    NONE,
    PHASES,
    REASONS,
    ROUTES,
    SPAN_OUTCOMES,
    TOKEN_TYPES,
    WHENS,
    Declared,
)
from predawn.proxy.engine_meters import EngineMeters
from predawn.proxy.logs import redact
from predawn.proxy.meters import Counter, Family, Gauge, Histogram
from predawn.proxy.postponed import Postponed
from predawn.proxy.tenants import DEFAULT, TenantMeters
from predawn.proxy.traffic import OTHER, AnswerMeters, TrafficMeters

if TYPE_CHECKING:
    from predawn.proxy.clock import Clock
    from predawn.proxy.exchange import RouteName
    from predawn.proxy.settings import Settings, UpstreamSettings
    from predawn.proxy.upstreams.base import Reason


class HookMeters:
    """The meters of one hook of one plugin."""

    __slots__ = ("_errors", "_plugin_hook", "took")

    def __init__(self, duration: Histogram, errors: Family[Counter], plugin: str, hook: str, after: Counter) -> None:
        self.took = duration.observe if hook != "on_done" else _both(duration, after)
        """Count a call that took so many seconds."""
        self._errors = errors
        self._plugin_hook = (plugin, hook)

    def failed(self, reason: str) -> None:
        """Count a failure; reasons beside `HookReason` count as `other`."""
        self._errors.of(*self._plugin_hook, reason if reason in HOOK_REASONS else OTHER).inc()


def _both(duration: Histogram, after: Counter) -> Callable[[float], None]:
    def took(seconds: float) -> None:
        duration.observe(seconds)
        after.value += seconds

    return took


class Metrics(Declared):
    """All metrics of one process. Which models and upstreams have labels of their own, `prepare` says."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self._models: frozenset[str] = frozenset()
        self._upstreams: frozenset[str] = frozenset()
        self._traffic: dict[tuple[str, str, str, bool], TrafficMeters] = {}
        self._engines: dict[str, EngineMeters] = {}
        self._classes: dict[str, TenantMeters] = {}
        self._default = self._strangers = TenantMeters(self, DEFAULT)
        self.spent = {when: self.phase_seconds.of(when) for when in WHENS}
        """Seconds by when they were spent: `before`, `during`, `alongside`, `after`."""
        self.during = self.spent["during"]
        self.postponed = Postponed()
        """Settle before reading what was counted."""

    # -- the request path

    def traffic(self, route: RouteName, model: str, upstream: str, stream: bool) -> TrafficMeters:
        """The meters of such requests; `upstream` is empty for a request that reached none. 0.1 µs."""
        if model not in self._models:
            model = OTHER
        if upstream not in self._upstreams:
            upstream = OTHER if upstream else NONE
        key = (route, model, upstream, stream)
        found = self._traffic.get(key)
        if found is None:
            words = (route if route in ROUTES else OTHER, model, upstream, "true" if stream else "false")
            found = self._traffic[key] = TrafficMeters(self, *words)
        return found

    def tenant(self, name: str) -> TenantMeters:
        """The meters of the class of a tenant."""
        return self._classes.get(name, self._default)

    def refused(self, route: RouteName, code: int, seconds: float) -> None:
        """Count a request that was answered before it was known who asks for what."""
        self.traffic(route, "", "", stream=False).observe(code=code, total_s=seconds, overhead_s=seconds)
        self._strangers.observe(code, seconds)
        self.during.value += seconds

    def in_flight(self, route: RouteName) -> Gauge:
        """Keep it; `inc()` when a request comes and `dec()` when it has been answered."""
        return self.requests_in_flight.of(route)

    def plain_answers(self, route: RouteName, model: str, upstream: str, tenant: str, *, stream: bool) -> AnswerMeters:
        """The meters of such plain requests of a tenant; keep them."""
        traffic = self.traffic(route, model, upstream, stream)
        return AnswerMeters(traffic, self.tenant(tenant), self._calls(upstream, model, "ok"))

    def upstream_call(  # noqa: PLR0917 - once per call: keywords cost 0.2 us
        self, upstream: str, model: str, outcome: str, seconds: float, exchange: str = "", at: float = 0.0
    ) -> None:
        """Count one call to an upstream; `model` is the alias, `outcome` the ledger's word for how it ended."""
        self._calls(upstream, model, outcome).observe_of(seconds, exchange, at)

    def _calls(self, upstream: str, model: str, outcome: str) -> Histogram:
        return self.upstream_durations.of(
            upstream if upstream in self._upstreams else OTHER,
            model if model in self._models else OTHER,
            outcome if outcome in CALL_OUTCOMES else OTHER,
        )

    def tokens_beside(self, upstream: str, model: str, phase: str, prompt: int, output: int) -> None:
        """Count tokens of a call that is no part of the answer."""
        upstream = upstream if upstream in self._upstreams else OTHER if upstream else NONE
        model = model if model in self._models else OTHER
        for kind, count in (("input", prompt), ("output", output)):
            if count:
                self.tokens.of(model, upstream, kind, phase).inc(count)

    # -- upstreams, hooks, the process

    def upstream_error(self, upstream: str, reason: Reason) -> None:
        self.upstream_errors.of(upstream, reason).inc()

    def upstream_retry(self, upstream: str) -> None:
        self.upstream_retries.of(upstream).inc()

    def upstream_fallback(self, upstream: str) -> None:
        """Count a request that `upstream` took over."""
        self.upstream_fallbacks.of(upstream).inc()

    def breaker_state(self, upstream: str) -> Gauge:
        """Set it to 0 for closed, 1 for half-open, 2 for open."""
        return self.upstream_breaker_state.of(upstream)

    def engine(self, upstream: str) -> EngineMeters:
        """The meters of the local engine behind an upstream; they are created at 0."""
        return EngineMeters(self, upstream, self._engines)

    def hook(self, plugin: str, hook: str) -> HookMeters:
        """The meters of a plugin's hook; they are created at 0."""
        for reason in HOOK_REASONS:
            self.hook_errors.of(plugin, hook, reason)
        return HookMeters(self.hook_duration.of(plugin, hook), self.hook_errors, plugin, hook, self.spent["after"])

    @property
    def event_loop_lag(self) -> Histogram:
        return self._lag.of()

    def reloaded(self, *, ok: bool) -> None:
        """Count an attempt to reload the settings."""
        self.config_reloads.of("ok" if ok else "failed").inc()

    def prepare(self, settings: Settings) -> None:
        """Learn the aliases and upstreams, and create their meters at 0; again after each reload."""
        self._models = frozenset(model.name for model in settings.models) - {"*"}
        self._upstreams = frozenset(upstream.name for upstream in settings.upstreams)
        self._traffic.clear()
        self._start_traffic(settings)
        self._start_tenants(settings)
        for upstream in settings.upstreams:
            self._start_upstream(upstream.name)
            if upstream.relay:
                self.traffic("raw", OTHER, upstream.name, stream=False).start()
        for outcome in ("ok", "failed"):
            self.config_reloads.of(outcome)
        for lane in LANES:
            self.lane_requests.of(lane)
        for outcome in SPAN_OUTCOMES:
            self.trace_spans.of(outcome)
        self.build_info.of(_version(), platform.python_version()).set(1)
        self.config_info.children.clear()
        self.config_info.of(_digest(settings)).set(1)
        self.plugin_info.children.clear()
        for position, entry in enumerate(settings.plugins):
            self.plugin_info.of(entry.name, str(position)).set(1)

    def _start_traffic(self, settings: Settings) -> None:
        upstreams = {upstream.name: upstream for upstream in settings.upstreams}
        for route in ROUTES:
            self.requests_in_flight.of(route)
        for model in settings.models:
            label = OTHER if model.name == "*" else model.name
            for target in model.all_targets:
                self._start_target(label, upstreams.get(target.upstream))

    def _start_tenants(self, settings: Settings) -> None:
        self._classes = {}
        for name, tenants in settings.access.tenant_classes.items():
            meters = TenantMeters(self, name)
            self._classes |= dict.fromkeys(tenants, meters)
        self._default, self._strangers = TenantMeters(self, DEFAULT), TenantMeters(self, NONE)

    def _start_target(self, model: str, upstream: UpstreamSettings | None) -> None:
        if upstream is None:
            return
        for outcome in CALL_OUTCOMES:
            self.upstream_durations.of(upstream.name, model, outcome)
        for kind in TOKEN_TYPES:
            for phase in PHASES:
                self.tokens.of(model, upstream.name, kind, phase)
        for route in upstream.routes:
            for stream in (False, True) if route != "embeddings" else (False,):
                self.traffic(route, model, upstream.name, stream).start()

    def _start_upstream(self, name: str) -> None:
        self.upstream_retries.of(name)
        self.upstream_fallbacks.of(name)
        self.upstream_breaker_state.of(name)
        for reason in REASONS:
            self.upstream_errors.of(name, reason)


def new_registry() -> CollectorRegistry:
    """A registry with the process's own metrics: memory, CPU, open files."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


def families(metrics: Metrics) -> Iterable[Family[Counter] | Family[Gauge] | Family[Histogram]]:
    """Every metric, in the order of declaration."""
    return (value for value in vars(metrics).values() if isinstance(value, Family))


async def watch_event_loop(metrics: Metrics, clock: Clock, every_s: float = 0.5) -> None:
    """Measure the loop's lag for as long as it runs: how much longer than asked a sleep takes."""
    lag = metrics.event_loop_lag
    while True:
        began = clock.monotonic()
        await clock.sleep(every_s)
        lag.observe(max(0.0, clock.monotonic() - began - every_s))


def _version() -> str:
    try:
        return version("predawn")
    except PackageNotFoundError:
        return "unknown"


def _digest(settings: Settings) -> str:
    """Short name of the settings; pydantic masks secrets in the dump, and what else looks like one is redacted."""
    return hashlib.sha256(redact(settings.model_dump_json()).encode()).hexdigest()[:12]
