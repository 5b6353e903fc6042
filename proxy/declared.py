"""Every metric of the proxy, declared once: its name, what it means, its labels and its buckets.

`Metrics` in metrics.py adds what the request path needs; nothing else makes one of these.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from predawn.proxy.exchange import RouteName
from predawn.proxy.meters import Counter, Family, Gauge, Histogram
from predawn.proxy.upstreams.base import Reason

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

HookReason: TypeAlias = Literal["error", "timeout", "dropped"]
TokenType: TypeAlias = Literal["input", "output", "cached_input", "reasoning"]
Phase: TypeAlias = Literal["sleep", "serve", "discarded", "verify"]
When: TypeAlias = Literal["before", "during", "alongside", "after"]

ROUTES: Final[tuple[str, ...]] = get_args(RouteName)
REASONS: Final[tuple[str, ...]] = get_args(Reason)
CALL_OUTCOMES: Final = ("ok", "cancelled", *REASONS)
HOOKS: Final = ("on_request", "assess", "allocate", "around_completion", "chunk_filter", "on_done")
HOOK_REASONS: Final[tuple[str, ...]] = get_args(HookReason)
TOKEN_TYPES: Final[tuple[str, ...]] = get_args(TokenType)
PHASES: Final[tuple[str, ...]] = get_args(Phase)
WHENS: Final[tuple[str, ...]] = get_args(When)
LANES: Final = ("fast", "full")
SPAN_OUTCOMES: Final = ("exported", "dropped", "failed")
NONE: Final = "none"
"""Stands for the upstream of a request that reached none."""

# the boundaries of OpenTelemetry's GenAI conventions, and finer ones for what the proxy itself adds
LAT: Final = tuple(0.01 * 2**step for step in range(17))
TTFT: Final = (0.005, *LAT[:14])
ITL: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
FAST: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
LONG: Final = (*FAST, 2.5, 10.0, 60.0)
JOB: Final = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
AGE: Final = (1.0, 10.0, 60.0, 300.0, 1800.0, 3600.0, 14400.0, 43200.0, 86400.0, 259200.0, 604800.0, 2592000.0)
UNIT: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
TOK: Final = tuple(4.0**step for step in range(11))
CNT: Final = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0)
KERN: Final = (1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.1, 0.5, 2.0)


class Declared:
    """The families, by area in the order of a request's life."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        """Where plugins register metrics of their own."""
        self._declare_traffic()
        self._declare_tenants()
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

    def _declare_tenants(self) -> None:
        self.tenant_requests = self._counter(
            "tenant_requests_total", "Requests answered, by the class of who asked.", "tenant_class", "code"
        )
        self.tenant_duration = self._histogram(
            "tenant_request_duration_seconds", "As request_duration, by the class of who asked.", LAT, "tenant_class"
        )
        self.tenant_ttft = self._histogram(
            "tenant_time_to_first_token_seconds",
            "As time_to_first_token, by the class of who asked.",
            TTFT,
            "tenant_class",
        )
        self.tenant_tokens = self._counter(
            "tenant_tokens_total",
            "Tokens spent for requests, whatever on; by the class of who asked.",
            "tenant_class",
            "type",
        )
        self.phase_seconds = self._counter(
            "phase_seconds_total",
            "Seconds by when they were spent: before (calls asleep), during (from requests to their answers' ends), "
            "alongside (verifiers, which overlap that), after (observers).",
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

        self.engine_batch_size = self._histogram(
            "engine_batch_size", "Choices that a step of an engine decoded together.", CNT, "upstream"
        )
        self.kernel_step = self._histogram(
            "kernel_step_seconds",
            "One pass of an engine's kernels: a chunk of prompts, or the next tokens of a batch.",
            KERN,
            "kernel",
            "dtype",
            "backend",
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
            LONG,
            "verifier",
        )

    def _declare_proxy(self) -> None:
        self.overhead = self._histogram(
            "overhead_seconds", "A request's time that neither an upstream nor a plugin used.", FAST, "route", "stream"
        )
        self.lane_requests = self._counter(
            "lane_requests_total", "Requests to completion endpoints, by the lane that answered them.", "lane"
        )
        self.hook_duration = self._histogram(
            "hook_duration_seconds", "One call of a plugin's hook.", LONG, "plugin", "hook"
        )
        self.hook_errors = self._counter(
            "hook_errors_total", "Hook calls that raised, took too long, or were dropped.", "plugin", "hook", "reason"
        )
        self._lag = self._histogram("event_loop_lag_seconds", "How much later than asked the event loop woke up.", FAST)
        self.trace_spans = self._counter(
            "trace_spans_total", "Spans made by the plugin `traces`, by what became of them.", "outcome"
        )
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
