"""Whom requests are sent to, what plugins cost, how the process is doing, and the local engine with its kernels."""

from __future__ import annotations

from grafana.boards.common import (
    ANNOTATIONS,
    GREEN,
    JOB,
    MODEL,
    READ,
    RED,
    UPSTREAM,
    YELLOW,
    heat,
    quantile_by,
    quantiles,
)
from grafana.model.dashboard import Dashboard, Row
from grafana.model.panel import Bars, Lines, Panel, Stat, States, Step, Table, Word
from grafana.model.query import Query
from grafana.model.unit import Unit
from grafana.promql import busy, or_zero, share, total

BY_UPSTREAM = ("upstream",)


def board() -> Dashboard:
    """For whoever is called at night."""
    return Dashboard(
        uid="predawn-runtime",
        title="Predawn / Upstreams, plugins & runtime",
        description="Are upstreams well, what do plugins cost, is the process well, and is the local engine busy?",
        rows=(
            Row("At a glance", _glance()),
            Row("Upstreams", _upstreams()),
            Row("Plugins", _plugins()),
            Row("Processes", _processes()),
            Row("Local engine and its kernels", _engine()),
        ),
        variables=(JOB, MODEL, UPSTREAM),
        annotations=ANNOTATIONS,
    )


def _ours(metric: str) -> str:
    """A metric of the process, of those processes alone that are Predawn."""
    return f"({READ.pick(metric)} and on (job, instance) {READ.pick('build_info')})"


def _glance() -> tuple[Panel, ...]:
    calls = READ.rate("upstream_duration_seconds", part="count")
    return (
        Stat(
            title="Breakers open",
            description="Upstreams left alone because they failed too often. Each is tried again by a single request "
            "before it is trusted.",
            unit=Unit.COUNT,
            queries=(Query(or_zero(f"count({READ.pick('upstream_breaker_state')} == 2)"), "open"),),
            steps=(Step(1, RED),),
            decimals=0,
        ),
        Stat(
            title="Failed calls",
            description="Share of calls to upstreams that were not answered as they should. Retries and fallbacks hide "
            "most of them from clients.",
            unit=Unit.SHARE,
            queries=(Query(or_zero(share(READ.rate("upstream_errors_total"), calls)), "failed"),),
            steps=(Step(0.01, YELLOW), Step(0.1, RED)),
            decimals=1,
        ),
        Stat(
            title="Streams cut short",
            description="Streams a second that an upstream ended before their end. Nothing can be retried once a "
            "client has text.",
            unit=Unit.PER_S,
            queries=(Query(or_zero(READ.rate("upstream_errors_total", 'reason="truncated"')), "truncated"),),
            steps=(Step(0.001, YELLOW), Step(0.1, RED)),
        ),
        Stat(
            title="Hook errors",
            description="Hook calls a second that raised, took too long, or were dropped.",
            unit=Unit.PER_S,
            queries=(Query(or_zero(READ.rate("hook_errors_total")), "hook errors"),),
            steps=(Step(0.001, YELLOW), Step(1, RED)),
        ),
        Stat(
            title="Event loop lag, p99",
            description="How much later than asked the event loop woke up. What blocks it delays every token of every "
            "stream.",
            unit=Unit.SECONDS,
            queries=(Query(or_zero(f"{READ.quantile(0.99, 'event_loop_lag_seconds')} >= 0"), "lag, p99"),),
            steps=(Step(0.05, YELLOW), Step(0.25, RED)),
        ),
        Stat(
            title="Processes",
            description="Processes that are scraped and run Predawn.",
            unit=Unit.COUNT,
            queries=(Query(or_zero(f"count({READ.pick('build_info')})"), "processes"),),
            decimals=0,
        ),
    )


def _upstreams() -> tuple[Panel, ...]:
    took = "upstream_duration_seconds"
    reasons = ("upstream", "reason")
    return (
        States(
            title="Breakers",
            description="closed: all is well; half-open: one request tries; open: left alone.",
            unit=Unit.NONE,
            queries=(
                Query(
                    or_zero(f"max by (upstream) ({READ.pick('upstream_breaker_state')})", "upstream"), "{{upstream}}"
                ),
            ),
            words=(Word(0, "closed", GREEN), Word(1, "half-open", YELLOW), Word(2, "open", RED)),
        ),
        Lines(
            title="Errors by reason",
            description="connect: no connection; timeout_ttft: nothing came; timeout_idle: a stream stopped; "
            "truncated: it ended too soon; protocol: it was no answer; breaker: left alone; crashed: the local "
            "engine went down.",
            unit=Unit.PER_S,
            queries=(
                Query(
                    or_zero(busy(READ.rate("upstream_errors_total", by=reasons)), *reasons), "{{upstream}} {{reason}}"
                ),
            ),
            stacked=True,
        ),
        Lines(
            title="Retries and fallbacks",
            description="Calls a second that were another try, and requests that another upstream took over. Clients "
            "saw nothing of either.",
            unit=Unit.PER_S,
            queries=(
                Query(
                    or_zero(busy(READ.rate("upstream_retries_total", by=BY_UPSTREAM)), "upstream"),
                    "retried at {{upstream}}",
                ),
                Query(
                    or_zero(busy(READ.rate("upstream_fallbacks_total", by=BY_UPSTREAM)), "upstream"),
                    "taken over by {{upstream}}",
                ),
            ),
        ),
        heat("One call", "One call to an upstream, from sending to the last byte.", took),
        quantiles("One call: p50, p90, p99", "Calls of sleep, samples and verifiers count, too.", took),
        quantile_by("One call by upstream, p95", "Which upstream is slow.", took, BY_UPSTREAM),
        Lines(
            title="Calls by outcome",
            description="ok, cancelled (given up by a client, a vote or a breaker), or the reason of the error.",
            unit=Unit.PER_S,
            queries=(Query(or_zero(busy(READ.rate(took, by=("outcome",), part="count")), "outcome"), "{{outcome}}"),),
            stacked=True,
            width=12,
        ),
        Lines(
            title="Calls by upstream",
            description="Calls a second. More than requests come from samples, retries, verifiers and sleep.",
            unit=Unit.PER_S,
            queries=(Query(or_zero(READ.rate(took, by=BY_UPSTREAM, part="count"), "upstream"), "{{upstream}}"),),
            stacked=True,
            width=12,
        ),
    )


def _plugins() -> tuple[Panel, ...]:
    hook = ("plugin", "hook")
    errors = READ.rate("hook_errors_total", by=("plugin", "hook", "reason"))
    return (
        Lines(
            title="Time in hooks",
            description="Seconds a second that calls of a plugin's hook last. around_completion holds the upstream's "
            "answer inside; on_done runs when the client has its answer.",
            unit=Unit.SECONDS,
            queries=(
                Query(
                    or_zero(busy(READ.rate("hook_duration_seconds", by=hook, part="sum")), *hook), "{{plugin}} {{hook}}"
                ),
            ),
            stacked=True,
        ),
        quantile_by(
            "One call of a hook, p99",
            "Which hook is slow at times.",
            "hook_duration_seconds",
            hook,
            share=0.99,
        ),
        Lines(
            title="Errors of hooks",
            description="error: it raised; timeout: it took too long; dropped: an observer's queue was full. An "
            "observer that fails again and again is turned off.",
            unit=Unit.PER_S,
            queries=(Query(or_zero(busy(errors), *hook, "reason"), "{{plugin}} {{hook}} {{reason}}"),),
            stacked=True,
        ),
        Table(
            title="Active plugins",
            description="In the order in which they run.",
            unit=Unit.NONE,
            queries=(
                Query(or_zero(f"min by (position, plugin) ({READ.pick('plugin_info')})", "plugin"), "{{plugin}}"),
            ),
            columns=("position", "plugin"),
            height=7,
        ),
        Table(
            title="What runs",
            description="One line for each process: version, Python, and the settings in force by their digest. Two "
            "digests beside each other for long are a reload that did not reach everybody.",
            unit=Unit.NONE,
            queries=(
                Query(
                    f"{READ.pick('build_info')} * on (job, instance) group_left (digest) {READ.pick('config_info')}",
                    "{{instance}}",
                ),
            ),
            columns=("instance", "job", "version", "python", "digest"),
            height=7,
        ),
        Lines(
            title="Requests by lane",
            description="fast: no plugin acts on the model and the request is plain; full: everything else. Only the "
            "cost differs.",
            unit=Unit.PER_S,
            queries=(Query(READ.rate("lane_requests_total", by=("lane",)), "{{lane}}"),),
            stacked=True,
            height=7,
        ),
        Lines(
            title="Reloads and exported spans",
            description="Attempts to reload the settings, and spans of the plugin traces by what became of them.",
            unit=Unit.PER_S,
            queries=(
                Query(READ.rate("config_reloads_total", by=("outcome",)), "reload {{outcome}}"),
                Query(or_zero(READ.rate("trace_spans_total", by=("outcome",)), "outcome"), "spans {{outcome}}"),
            ),
            height=7,
        ),
    )


def _processes() -> tuple[Panel, ...]:
    cpu = f"rate({READ.pick('process_cpu_seconds_total')}[{READ.window}])"
    return (
        heat(
            "Event loop lag",
            "How much later than asked the event loop woke up; measured twice a second in each process.",
            "event_loop_lag_seconds",
        ),
        quantiles("Event loop lag: p50, p90, p99", "It belongs below 10 ms.", "event_loop_lag_seconds"),
        Lines(
            title="Processor",
            description="Cores used by each process. A process of Predawn uses one at most, beside its local engine.",
            unit=Unit.SHARE,
            queries=(Query(f"({cpu} and on (job, instance) {READ.pick('build_info')})", "{{instance}}"),),
        ),
        Lines(
            title="Memory",
            description="Resident memory of each process. It rises with the texts of notes and with long streams.",
            unit=Unit.BYTES,
            queries=(Query(_ours("process_resident_memory_bytes"), "{{instance}}"),),
        ),
        Lines(
            title="Open files",
            description="Connections and files of each process; an upstream that hangs shows here first.",
            unit=Unit.COUNT,
            queries=(Query(_ours("process_open_fds"), "{{instance}}"),),
        ),
        Lines(
            title="Up since",
            description="Age of each process. A line that falls to 0 is a restart.",
            unit=Unit.SECONDS,
            queries=(Query(f"time() - {_ours('process_start_time_seconds')}", "{{instance}}"),),
        ),
    )


def _engine() -> tuple[Panel, ...]:
    pages = READ.pick("engine_kv_pages", 'state="used"')
    all_pages = READ.pick("engine_kv_pages", 'state="total"')
    tokens = "engine_tokens_total"
    return (
        Lines(
            title="Work of the engine",
            description="Choices that a local engine works on, and requests that wait for room.",
            unit=Unit.COUNT,
            queries=(
                Query(
                    or_zero(total(READ.pick("engine_requests"), by=("upstream", "state")), "upstream", "state"),
                    "{{upstream}} {{state}}",
                ),
            ),
            stacked=True,
        ),
        Lines(
            title="Tokens of the engine",
            description="Tokens a second: prefill of prompts, decode of answers, and those of the latter that lookup "
            "had drafted.",
            unit=Unit.TOKENS_PER_S,
            queries=(Query(or_zero(READ.rate(tokens, by=("kind",)), "kind"), "{{kind}}"),),
        ),
        Lines(
            title="Pages of keys and values",
            description="Share of the pages in use, kept prompts included. Full is no fault: kept prompts give way.",
            unit=Unit.SHARE,
            queries=(
                Query(
                    or_zero(share(total(pages, by=BY_UPSTREAM), total(all_pages, by=BY_UPSTREAM)), "upstream"),
                    "{{upstream}}",
                ),
            ),
            high=1,
        ),
        *_kernels(),
        Lines(
            title="Drafted by lookup",
            description="Share of generated tokens that lookup had guessed from the prompt: each spared a step.",
            unit=Unit.SHARE,
            queries=(
                Query(
                    or_zero(share(READ.rate(tokens, 'kind="lookup"'), READ.rate(tokens, 'kind="decode"'))), "drafted"
                ),
            ),
            high=1,
        ),
        Table(
            title="Engines",
            description="What runs, where, and how its products are computed.",
            unit=Unit.NONE,
            queries=(
                Query(
                    or_zero(
                        f"max by (upstream, model, device, dtype, execution) ({READ.pick('engine_info')})", "upstream"
                    ),
                    "{{upstream}}",
                ),
            ),
            columns=("upstream", "model", "device", "dtype", "execution"),
        ),
        Bars(
            title="Starts of engines",
            description="Times that an engine got ready since its server started, as far as the span that is shown "
            "knows. More than one means that it died.",
            unit=Unit.COUNT,
            queries=(
                Query(
                    or_zero(
                        f"max by (upstream) (max_over_time({READ.pick('engine_starts_total')}[$__range]))", "upstream"
                    ),
                    "{{upstream}}",
                ),
            ),
            decimals=0,
        ),
    )


def _kernels() -> tuple[Panel, ...]:
    return (
        heat(
            "One step of a kernel",
            "How long one step of the engine takes on the device.",
            "kernel_step_seconds",
        ),
        quantile_by(
            "One step of a kernel, p90",
            "By kernel and by what computes it. The fused block should lie below the plain one.",
            "kernel_step_seconds",
            ("kernel", "backend"),
            share=0.9,
        ),
        heat(
            "Rows in a step",
            "How many sequences are computed together. One at a time wastes the weights that were fetched.",
            "engine_batch_size",
            unit=Unit.COUNT,
        ),
    )
