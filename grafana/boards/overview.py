"""Is it fast, what does Predawn add, what did sleep save today, what is it spending and when."""

from __future__ import annotations

from grafana.boards.common import (
    ANNOTATIONS,
    DAY,
    EVERYTHING,
    GREEN,
    JOB,
    MODEL,
    PHASES,
    RANGE,
    READ,
    RED,
    TENANTS,
    UPSTREAM,
    YELLOW,
    heat,
    quantile_by,
    quantiles,
)
from grafana.model.dashboard import Dashboard, Row
from grafana.model.panel import Lines, Panel, Stat, Step
from grafana.model.query import Query
from grafana.model.unit import Unit
from grafana.objectives import AVAILABILITY, BURNS, OBJECTIVES, Objective
from grafana.promql import Reader, busy, or_else, or_zero, share, some, total


def board() -> Dashboard:
    """The first page to open, and the one for a wall."""
    return Dashboard(
        uid="predawn-overview",
        title="Predawn / Overview & SLO",
        description="Is it fast, what does Predawn add, what did sleep save today, what is it spending and when?",
        rows=(
            Row("Is it fast? What does Predawn add? What did sleep save today? What is spent, and when?", _answers()),
            Row("Service level", _service()),
            Row("How long people wait", _waiting()),
            Row("What Predawn adds, and where the time goes", _split()),
            Row("Tokens", _tokens()),
            Row("Classes of tenants", _tenants()),
        ),
        variables=(JOB, MODEL, UPSTREAM, TENANTS),
        annotations=ANNOTATIONS,
    )


# -- the first row


def _answers() -> tuple[Panel, ...]:
    return (
        Stat(
            title="First token, p95",
            description="95 of 100 streams begin sooner. If it rises and “Predawn adds” does not, look at the "
            "upstreams.",
            unit=Unit.SECONDS,
            queries=(Query(or_zero(some(READ.quantile(0.95, "time_to_first_token_seconds"))), "first token, p95"),),
            steps=(Step(1, YELLOW), Step(2.56, RED)),
            height=7,
        ),
        Stat(
            title="Predawn adds, p99",
            description="Time that neither an upstream nor a plugin used, of the slowest request in a hundred. A few "
            "milliseconds are usual; more means a busy processor or a blocked event loop.",
            unit=Unit.SECONDS,
            queries=(Query(or_zero(some(READ.quantile(0.99, "overhead_seconds"))), "overhead, p99"),),
            steps=(Step(0.01, YELLOW), Step(0.025, RED)),
            height=7,
        ),
        Stat(
            title="Saved by sleep, 24 h",
            description="Output tokens that nobody had to wait for, against answers of the same model about the same "
            "context without notes. What sleep spent on it is on the dashboard “Sleep-time & contexts”.",
            unit=Unit.TOKENS,
            queries=(Query(or_zero(DAY.increase("context_tokens_saved_total")), "saved, 24 h"),),
            past=False,
            height=7,
        ),
        Stat(
            title="Failed requests",
            description="Share of requests answered with a 5xx. Clients that left (499) and requests refused by a "
            "limit (429) are no failures.",
            unit=Unit.SHARE,
            queries=(Query(or_zero(AVAILABILITY.missed(READ)), "failed"),),
            steps=(Step(0.001, YELLOW), Step(0.01, RED)),
            decimals=2,
            height=7,
        ),
        Lines(
            title="What is spent, and when",
            description="Tokens a second by phase, read and written. Before: asleep, while nobody waits. During: the "
            "answers. Alongside: verifiers that ask a model. Thrown away: samples not chosen, probes, what was cut.",
            unit=Unit.TOKENS_PER_S,
            queries=tuple(
                Query(or_zero(READ.rate("tokens_total", 'type=~"input|output"', f'phase="{phase}"')), legend)
                for phase, legend in PHASES
            ),
            stacked=True,
            height=7,
        ),
    )


# -- service level


def _service() -> tuple[Panel, ...]:
    return (
        *(_kept(objective) for objective in OBJECTIVES),
        *(_left(objective) for objective in OBJECTIVES),
        Lines(
            title="Burn rate of the error budgets",
            description="How many times faster than allowed a budget of 30 days is used up. Above 14.4 it is gone in "
            "two days, and somebody is called. The dashed lines are where the alerts begin.",
            unit=Unit.TIMES,
            queries=tuple(_burn(objective, window) for objective in OBJECTIVES for window in ("5m", "1h")),
            steps=(Step(BURNS[1].factor, YELLOW), Step(BURNS[0].factor, RED)),
            marks=True,
        ),
        Lines(
            title="Requests by status",
            description="Answers a second by HTTP status. 499: the client left. 429: a limit of a key or a budget, or "
            "the upstream's own.",
            unit=Unit.REQUESTS_PER_S,
            queries=(Query(or_zero(READ.rate("requests_total", by=("code",)), "code"), "{{code}}"),),
            stacked=True,
        ),
        Lines(
            title="In flight",
            description="Requests that have come and are not answered to the end, by route. A level that only rises "
            "means that answers no longer end.",
            unit=Unit.COUNT,
            queries=(Query(total(READ.pick("requests_in_flight"), by=("route",)), "{{route}}"),),
            stacked=True,
        ),
    )


def _kept(objective: Objective) -> Stat:
    return Stat(
        title=objective.title,
        description=f"{objective.meaning}, over the span that is shown. Promised: {objective.target:.1%}.",
        unit=Unit.SHARE,
        queries=(Query(or_else(f"1 - ({objective.missed(RANGE)})", 1), objective.title.lower()),),
        base=RED,
        steps=(Step(objective.target, GREEN),),
        decimals=2,
        past=False,
        width=6,
    )


def _left(objective: Objective) -> Stat:
    left = f"1 - ({objective.missed(RANGE)}) / {objective.allowed:g}"
    return Stat(
        title=f"Error budget left: {objective.title.lower()}",
        description="What is left of the errors that the promise allows, if the span that is shown were its period. "
        "Below 0 more went wrong than was agreed. Choose 30 days for the usual view.",
        unit=Unit.SHARE,
        queries=(Query(or_else(left, 1), "left"),),
        base=RED,
        steps=(Step(0, YELLOW), Step(0.5, GREEN)),
        low=None,
        decimals=0,
        past=False,
        width=6,
    )


def _burn(objective: Objective, window: str) -> Query:
    missed = objective.missed(Reader(window=window))
    return Query(or_zero(f"({missed}) / {objective.allowed:g}"), f"{objective.title.lower()}, {window}")


# -- latency


def _waiting() -> tuple[Panel, ...]:
    return (
        heat(
            "Time to first token",
            "From a request's arrival to the first piece of its streamed answer; the darker, the more streams. A "
            "second band above the first is a second kind of request: reasoning, a cold cache, a queue.",
            "time_to_first_token_seconds",
        ),
        quantiles(
            "Time to first token: p50, p90, p99",
            "A line has a gap where no stream began.",
            "time_to_first_token_seconds",
        ),
        quantile_by(
            "Time to first token by model, p95",
            "Which model is slow to begin. It is mostly prefill and queueing at the upstream.",
            "time_to_first_token_seconds",
            ("model",),
        ),
        heat(
            "Whole request",
            "From the first byte of a request to the last of its answer. Points are single requests: their "
            "exchange_id leads to the record of everything that was decided about them.",
            "request_duration_seconds",
        ),
        quantiles(
            "Whole request: p50, p90, p99",
            "Long answers take long: compare with the tokens below before blaming anybody.",
            "request_duration_seconds",
        ),
        quantile_by(
            "Whole request by upstream, p95",
            "Which upstream is slow to end.",
            "request_duration_seconds",
            ("upstream",),
        ),
        heat(
            "Gap between tokens",
            "Mean gap between the pieces of a stream, one observation for each request. It is how fast text appears to "
            "be written.",
            "inter_token_latency_seconds",
        ),
        quantiles(
            "Gap between tokens: p50, p90, p99",
            "A person reads about 5 words a second: beyond 0.2 s a stream feels slow.",
            "inter_token_latency_seconds",
        ),
        quantiles(
            "Largest gap in a stream: p50, p90, p99",
            "Stutter. A gate that waits for a verifier shows here, and so does a preempted request at the upstream.",
            "max_token_gap_seconds",
        ),
    )


def _split() -> tuple[Panel, ...]:
    requests = EVERYTHING.rate("requests_total")
    return (
        heat(
            "Predawn adds",
            "A request's time that neither an upstream nor a plugin used. It belongs below 5 ms.",
            "overhead_seconds",
        ),
        quantiles(
            "Predawn adds: p50, p90, p99",
            "If p99 rises alone, the event loop is blocked now and then: see “Upstreams, plugins & runtime”.",
            "overhead_seconds",
        ),
        Lines(
            title="A request's time: before, during, alongside, after",
            description="Seconds by when they were spent, for each request. Before: sleep. During: from its arrival to "
            "the answer's end. Alongside: verifiers, mostly hidden behind the generation. After: recording and "
            "learning, when the answer is out. Only “during” is waited for. All models together.",
            unit=Unit.SECONDS,
            queries=tuple(
                Query(or_zero(share(EVERYTHING.rate("phase_seconds_total", f'phase="{phase}"'), requests)), phase)
                for phase in ("before", "during", "alongside", "after")
            ),
            stacked=True,
        ),
    )


# -- tokens and tenants


def _tokens() -> tuple[Panel, ...]:
    served = 'phase="serve"'
    read = READ.rate("tokens_total", 'type="input"', served)
    written = READ.rate("tokens_total", 'type="output"', served)
    return (
        Lines(
            title="Tokens by model",
            description="Tokens a second of the answers, read and written, by model.",
            unit=Unit.TOKENS_PER_S,
            queries=(
                Query(
                    or_zero(
                        busy(READ.rate("tokens_total", 'type=~"input|output"', served, by=("model", "type"))), "model"
                    ),
                    "{{model}} {{type}}",
                ),
            ),
            stacked=True,
        ),
        Lines(
            title="Cached and reasoning shares",
            description="Share of prompt tokens that upstreams had in their cache, and share of output that was "
            "thought before the answer. Sleep's warm prefixes raise the first; easy budgets lower the second.",
            unit=Unit.SHARE,
            queries=(
                Query(
                    or_zero(share(READ.rate("tokens_total", 'type="cached_input"', served), read)), "cached, of input"
                ),
                Query(
                    or_zero(share(READ.rate("tokens_total", 'type="reasoning"', served), written)),
                    "reasoning, of output",
                ),
            ),
            high=1,
        ),
        Lines(
            title="Tokens for a request",
            description="Tokens that a request cost on average, by phase: what the answers took, and all that was "
            "spent beside them.",
            unit=Unit.TOKENS,
            queries=tuple(
                Query(
                    or_zero(
                        share(
                            READ.rate("tokens_total", 'type=~"input|output"', f'phase="{phase}"'),
                            READ.rate("requests_total"),
                        )
                    ),
                    legend,
                )
                for phase, legend in PHASES
            ),
            stacked=True,
        ),
    )


def _tenants() -> tuple[Panel, ...]:
    by = ("tenant_class",)
    failed = READ.rate("tenant_requests_total", 'code=~"5.."', by=by)
    return (
        Lines(
            title="Requests by class",
            description="Requests a second by class of tenants (`access.tenant_classes` of the settings). The "
            "variables model and upstream do not narrow this row down.",
            unit=Unit.REQUESTS_PER_S,
            queries=(Query(or_zero(READ.rate("tenant_requests_total", by=by), *by), "{{tenant_class}}"),),
            stacked=True,
        ),
        quantile_by(
            "First token by class, p95",
            "Whether those who were promised more get more.",
            "tenant_time_to_first_token_seconds",
            by,
        ),
        quantile_by(
            "Whole request by class, p95",
            "From a request's first byte to its answer's last, by class of tenants.",
            "tenant_request_duration_seconds",
            by,
        ),
        Lines(
            title="Failures by class",
            description="Share of requests answered with a 5xx, by class of tenants.",
            unit=Unit.SHARE,
            queries=(
                Query(or_zero(share(failed, READ.rate("tenant_requests_total", by=by)), *by), "{{tenant_class}}"),
            ),
            width=12,
        ),
        Lines(
            title="Tokens by class",
            description="Tokens a second by class of tenants, read and written.",
            unit=Unit.TOKENS_PER_S,
            queries=(
                Query(
                    or_zero(READ.rate("tenant_tokens_total", by=("tenant_class", "type")), "tenant_class", "type"),
                    "{{tenant_class}} {{type}}",
                ),
            ),
            stacked=True,
            width=12,
        ),
    )
