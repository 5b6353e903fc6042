"""Every metric of the proxy, declared once; what the request path needs is looked up beforehand and kept.

`metrics.traffic(...)` gives the meters of one kind of request; an exchange calls their `observe` once, at its end.
Label values come from the settings and from the fixed sets below, never from a request: a model that is no alias counts
as `other`, so clients cannot make series.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from predawn.proxy.engine_meters import EngineMeters
from predawn.proxy.exchange import RouteName
from predawn.proxy.logs import redact
from predawn.proxy.meters import Counter, Family, Gauge, Histogram
from predawn.proxy.traffic import OTHER, TrafficMeters
from predawn.proxy.upstreams.base import Reason

if TYPE_CHECKING:
    from predawn.proxy.clock import Clock
    from predawn.proxy.settings import Settings, UpstreamSettings

HookReason: TypeAlias = Literal["error", "timeout", "dropped"]
TokenType: TypeAlias = Literal["input", "output", "cached_input", "reasoning"]
Phase: TypeAlias = Literal["sleep", "serve", "discarded", "verify"]

ROUTES: Final[tuple[str, ...]] = get_args(RouteName)
REASONS: Final[tuple[str, ...]] = get_args(Reason)
CALL_OUTCOMES: Final = ("ok", "cancelled", *REASONS)
HOOKS: Final = ("on_request", "assess", "allocate", "around_completion", "chunk_filter", "on_done")
HOOK_REASONS: Final[tuple[str, ...]] = get_args(HookReason)
TOKEN_TYPES: Final[tuple[str, ...]] = get_args(TokenType)
PHASES: Final[tuple[str, ...]] = get_args(Phase)
NONE: Final = "none"
"""Stands for the upstream of a request that reached none."""

# the boundaries of OpenTelemetry's GenAI conventions, and finer ones for what the proxy itself adds
LAT: Final = tuple(0.01 * 2**step for step in range(17))
TTFT: Final = (0.005, *LAT[:14])
ITL: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
FAST: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
JOB: Final = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
AGE: Final = (1.0, 10.0, 60.0, 300.0, 1800.0, 3600.0, 14400.0, 43200.0, 86400.0, 259200.0, 604800.0, 2592000.0)
UNIT: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
TOK: Final = tuple(4.0**step for step in range(11))
CNT: Final = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0)


class HookMeters:
    """The meters of one hook of one plugin."""

    __slots__ = ("_errors", "_plugin_hook", "took")

    def __init__(self, duration: Histogram, errors: Family[Counter], plugin: str, hook: str) -> None:
        self.took = duration.observe
        """Count a call that took so many seconds."""
        self._errors = errors
        self._plugin_hook = (plugin, hook)

    def failed(self, reason: str) -> None:
        """Count a failure; reasons beside `HookReason` count as `other`."""
        self._errors.of(*self._plugin_hook, reason if reason in HOOK_REASONS else OTHER).inc()


class Metrics:
    """All metrics of one process. Which models and upstreams have labels of their own, `prepare` says."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        """Where plugins register metrics of their own."""
        self._models: frozenset[str] = frozenset()
        self._upstreams: frozenset[str] = frozenset()
        self._traffic: dict[tuple[str, str, str, bool], TrafficMeters] = {}
        self._engines: dict[str, EngineMeters] = {}
        self._declare_traffic()
        self._declare_upstreams()
        self._declare_engines()
        self._declare_sleep()
        self._declare_contexts()
        self._declare_budget()
        self._declare_sampling()
        self._declare_verify()
        self._declare_proxy()

    def _declare_traffic(self) -> None:
        place = ("route", "model", "upstream")
        self.requests = self._counter("requests_total", "Requests answered, by HTTP status.", *place, "code", "stream")
        self.requests_in_flight = self._gauge(
            "requests_in_flight", "Requests that have come and are not answered to the end.", "route"
        )
        self.request_duration = self._histogram(
            "request_duration_seconds", "From the request's first byte to the answer's last.", LAT, *place, "stream"
        )
        self.time_to_first_token = self._histogram(
            "time_to_first_token_seconds", "From the request to the first piece of a streamed answer.", TTFT, *place
        )
        self.inter_token_latency = self._histogram(
            "inter_token_latency_seconds",
            "Mean gap between pieces of a stream; one observation a request.",
            ITL,
            *place,
        )
        self.max_token_gap = self._histogram(
            "max_token_gap_seconds", "Largest gap between pieces of a stream; one observation a request.", ITL, *place
        )
        self.tokens = self._counter(
            "tokens_total",
            "Tokens by the phase that spent them; cached_input is a part of input, and reasoning of output.",
            "model",
            "upstream",
            "type",
            "phase",
        )

    def _declare_upstreams(self) -> None:
        self.upstream_durations = self._histogram(
            "upstream_duration_seconds",
            "One call to an upstream, from sending to the last byte.",
            LAT,
            "upstream",
            "model",
            "outcome",
        )
        self.upstream_errors = self._counter(
            "upstream_errors_total", "Calls that an upstream did not answer as it should.", "upstream", "reason"
        )
        self.upstream_retries = self._counter(
            "upstream_retries_total", "Calls that were another try of the same request.", "upstream"
        )
        self.upstream_fallbacks = self._counter(
            "upstream_fallbacks_total", "Requests that an upstream took over after others had failed.", "upstream"
        )
        self.upstream_breaker_state = self._gauge(
            "upstream_breaker_state", "0 closed, 1 half-open (one request tries), 2 open (left alone).", "upstream"
        )

    def _declare_engines(self) -> None:
        self.engine_requests = self._gauge(
            "engine_requests", "Choices that a local engine works on, and requests that wait.", "upstream", "state"
        )
        self.engine_kv_pages = self._gauge(
            "engine_kv_pages", "Pages of 16 tokens for keys and values, kept prompts included.", "upstream", "state"
        )
        self.engine_tokens = self._counter(
            "engine_tokens_total",
            "Tokens computed for prompts, tokens generated, and those of the latter that were drafted by lookup.",
            "upstream",
            "kind",
        )
        self.engine_info = self._gauge(
            "engine_info",
            "1 for the engine that runs; execution is how its products are computed.",
            "upstream",
            "model",
            "device",
            "dtype",
            "execution",
        )
        self.engine_starts = self._counter(
            "engine_starts_total", "Times that an engine got ready; more than one means that it died.", "upstream"
        )

    def _declare_sleep(self) -> None:
        self.sleep_job_duration = self._histogram(
            "sleep_job_duration_seconds", "One job of sleep, its waits for a free upstream included.", JOB, "kind"
        )
        self.sleep_jobs = self._counter("sleep_jobs_total", "Jobs of sleep that ended here.", "kind", "outcome")
        self.sleep_backlog = self._gauge(
            "sleep_backlog_jobs", "Contexts that wait: candidate, active (a job has begun), deferred.", "kind"
        )
        self.sleep_oldest = self._gauge(
            "sleep_oldest_job_age_seconds", "How long the context that waits longest has waited."
        )
        self.sleep_gate_open = self._gauge(
            "sleep_gate_open", "1 while sleep may ask an upstream, 0 while it must not.", "upstream"
        )
        self.sleep_gate_closed = self._counter(
            "sleep_gate_closed_total", "Calls of sleep that were kept from beginning, or ended.", "reason"
        )

    def _declare_contexts(self) -> None:
        self.context_lookups = self._counter(
            "context_lookups_total", "Requests by what is known of how they begin; stale is a hit, too.", "result"
        )
        self.context_uses = self._counter(
            "context_uses_total", "Requests in which something was put or served.", "kind"
        )
        self.context_regrets = self._counter(
            "context_regrets_total", "Uses whose answer a verifier or a client called wrong."
        )
        self.context_age = self._histogram("context_age_seconds", "Age of notes when they were used.", AGE)
        self.context_tokens_saved = self._counter(
            "context_tokens_saved_total",
            "Output tokens saved, against answers of the same model about the same context.",
        )
        self.context_discoveries = self._counter(
            "context_discoveries_total", "Contexts found in requests: kept, evicted for others, refused.", "result"
        )
        self.context_entries = self._gauge("context_entries", "Contexts known to this process.")
        self.context_bytes = self._gauge("context_bytes", "Memory for the texts of notes in this process.")

    def _declare_budget(self) -> None:
        self.difficulty = self._histogram(
            "difficulty_score", "How hard requests were judged, by who was surest of it.", UNIT, "estimator", "model"
        )
        self.budget_granted = self._histogram(
            "budget_granted_tokens", "What a request was expected to cost when it got its budget.", TOK, "tier"
        )
        self.budget_spent = self._histogram(
            "budget_spent_tokens", "What a request cost: all output, and the prompts of further calls.", TOK, "tier"
        )
        self.budget_utilization = self._histogram(
            "budget_utilization_ratio", "What a request cost, against what was expected.", UNIT, "tier"
        )
        self.budget_price = self._gauge(
            "budget_price", "Gain in the chance of a right answer that a token must bring; the latest.", "model"
        )
        self.budget_exhausted = self._counter(
            "budget_exhausted_total", "Requests whose budget a ceiling made smaller, or that were refused.", "tier"
        )
        self.budget_outcomes = self._counter(
            "budget_outcomes_total", "Requests learnt from, by what told how good the answer was.", "source"
        )
        self.budget_probes = self._counter(
            "budget_probes_total", "Requests of which the model was asked a little first.", "outcome"
        )
        self.budget_flat = self._gauge(
            "budget_flat_curves", "Kinds of tasks, of all tenants, for which more tokens gain nothing.", "model"
        )
        self.budget_knob = self._gauge(
            "budget_knob_obeyed",
            "1 if the model thinks more when asked to, 0 if not; set by `probe_capabilities`.",
            "model",
        )

    def _declare_sampling(self) -> None:
        self.samples_drawn = self._histogram(
            "samples_drawn", "Answers drawn for a request that was given more than one chance.", CNT, "strategy"
        )
        self.samples = self._counter("samples_total", "Answers drawn, by what became of them.", "strategy", "outcome")
        self.sample_agreement = self._histogram(
            "sample_agreement_ratio",
            "Share of comparable answers that say what the chosen one says; one observation a request.",
            UNIT,
            "strategy",
        )
        self.early_stops = self._counter(
            "early_stops_total",
            "Requests that were answered before all that was allowed was drawn.",
            "strategy",
            "reason",
        )
        self.sample_tokens_cancelled = self._counter(
            "sample_tokens_cancelled_total", "Output tokens of answers that were given up on their way.", "strategy"
        )

    def _declare_verify(self) -> None:
        self.verifier_duration = self._histogram(
            "verifier_duration_seconds", "One verifier's look at one step.", LAT, "verifier"
        )
        self.verifier_checks = self._counter(
            "verifier_checks_total",
            "Steps looked at, by what was said of them; shed are those passed over because too much waited.",
            "verifier",
            "verdict",
        )
        self.verifier_interventions = self._counter(
            "verifier_interventions_total", "Violations, by what was done about them.", "verifier", "action"
        )
        self.verifier_overlap = self._histogram(
            "verifier_overlap_ratio",
            "Share of a verifier's time that was hidden behind the generation; one observation an answer.",
            UNIT,
            "verifier",
        )
        self.verifier_added_latency = self._histogram(
            "verifier_added_latency_seconds",
            "From the end of the generation to a verifier's last word; one observation an answer.",
            FAST,
            "verifier",
        )

    def _declare_proxy(self) -> None:
        self.overhead = self._histogram(
            "overhead_seconds", "A request's time that neither an upstream nor a plugin used.", FAST, "route", "stream"
        )
        self.hook_duration = self._histogram(
            "hook_duration_seconds", "One call of a plugin's hook.", FAST, "plugin", "hook"
        )
        self.hook_errors = self._counter(
            "hook_errors_total", "Hook calls that raised, took too long, or were dropped.", "plugin", "hook", "reason"
        )
        self._lag = self._histogram("event_loop_lag_seconds", "How much later than asked the event loop woke up.", FAST)
        self.build_info = self._gauge("build_info", "Always 1; what runs.", "version", "python")
        self.config_info = self._gauge(
            "config_info", "1 for the settings in force; the digest changes when they do.", "digest"
        )
        self.plugin_info = self._gauge(
            "plugin_info", "1 for each active plugin; position is its place in the order.", "plugin", "position"
        )
        self.config_reloads = self._counter("config_reloads_total", "Attempts to reload the settings.", "outcome")

    def _counter(self, name: str, text: str, *labels: str) -> Family[Counter]:
        return Family(f"predawn_{name}", text, labels, Counter, self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Family[Gauge]:
        return Family(f"predawn_{name}", text, labels, Gauge, self.registry)

    def _histogram(self, name: str, text: str, bounds: tuple[float, ...], *labels: str) -> Family[Histogram]:
        return Family(f"predawn_{name}", text, labels, partial(Histogram, bounds), self.registry)

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

    def in_flight(self, route: RouteName) -> Gauge:
        """Keep it; `inc()` when a request comes and `dec()` when it has been answered."""
        return self.requests_in_flight.of(route)

    def upstream_call(self, upstream: str, model: str, outcome: str, seconds: float) -> None:
        """Count one call to an upstream; `model` is the alias, `outcome` the ledger's word for how it ended."""
        self.upstream_durations.of(
            upstream if upstream in self._upstreams else OTHER,
            model if model in self._models else OTHER,
            outcome if outcome in CALL_OUTCOMES else OTHER,
        ).observe(seconds)

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
        return HookMeters(self.hook_duration.of(plugin, hook), self.hook_errors, plugin, hook)

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
        for upstream in settings.upstreams:
            self._start_upstream(upstream.name)
            if upstream.relay:
                self.traffic("raw", OTHER, upstream.name, stream=False).start()
        for outcome in ("ok", "failed"):
            self.config_reloads.of(outcome)
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


def render(metrics: Metrics, accept: str = "") -> tuple[bytes, str]:
    """The body and content type of /metrics, in the format that the `Accept` header asks for; run it in a thread."""
    encode, content_type = choose_encoder(accept)
    return encode(metrics.registry), content_type


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
