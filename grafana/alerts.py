"""When somebody should look. Each alert says what it means for users, and where to look first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from grafana.objectives import BURNS, OBJECTIVES, Burn, Objective, Severity
from grafana.promql import share
from grafana.rules import LAG, OVERHEAD, missed, over

PAGE: Final = "https://github.com/predawn/predawn/blob/main/docs/dashboards.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alert; texts may hold Prometheus' `{{ … }}`."""

    name: str
    expr: str
    wait: str
    severity: Severity
    summary: str
    description: str
    board: str
    """Uid of the dashboard to open."""
    labels: tuple[tuple[str, str], ...] = ()

    def json(self) -> dict[str, Any]:
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.wait,
            "labels": {"severity": self.severity, **dict(self.labels)},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "dashboard": f"/d/{self.board}",
                "runbook_url": f"{PAGE}#{self.name.lower()}",
            },
        }


def groups() -> Iterator[dict[str, Any]]:
    """As they stand in a rule file."""
    burning = [_burning(objective, burn) for objective in OBJECTIVES for burn in BURNS]
    yield {"name": "predawn-error-budgets", "rules": [alert.json() for alert in burning]}
    yield {"name": "predawn-service", "rules": [alert.json() for alert in (*_process(), *_upstreams())]}
    yield {"name": "predawn-features", "rules": [alert.json() for alert in _features()]}


def _burning(objective: Objective, burn: Burn) -> Alert:
    most = f"{burn.factor * objective.allowed:g}"
    only = f'{{slo="{objective.name}"}}'
    return Alert(
        name="PredawnErrorBudgetBurn",
        expr=f"{missed(burn.long)}{only} > {most} and {missed(burn.short)}{only} > {most}",
        wait=burn.wait,
        severity=burn.severity,
        summary=f"{{{{ $labels.job }}}} uses up its error budget ({objective.name}) {burn.factor:g} times too fast",
        description=f"{{{{ $value | humanizePercentage }}}} of requests missed the objective in the last {burn.long}; "
        f"{objective.allowed:.1%} may. At this rate the budget of 30 days is gone in {burn.until_empty}.",
        board="predawn-overview",
        labels=(("slo", objective.name), ("window", burn.long)),
    )


def _process() -> Iterator[Alert]:
    lately = over("15m")
    failed_reloads = lately.increase("config_reloads_total", 'outcome="failed"', by=("job", "instance"))
    yield Alert(
        name="PredawnDown",
        expr="up == 0 and on (job, instance) last_over_time(predawn_build_info[1h])",
        wait="1m",
        severity="page",
        summary="{{ $labels.instance }} cannot be scraped any more",
        description="It ran Predawn within the last hour. It is down, or its admin port cannot be reached.",
        board="predawn-runtime",
    )
    yield Alert(
        name="PredawnOverheadHigh",
        expr=f"{OVERHEAD} > 0.025",
        wait="10m",
        severity="ticket",
        summary="{{ $labels.job }} adds {{ $value | humanizeDuration }} to one request in a hundred",
        description="Time that neither an upstream nor a plugin used. A busy processor or a blocked event loop.",
        board="predawn-runtime",
    )
    yield Alert(
        name="PredawnEventLoopBlocked",
        expr=f"{LAG} > 0.25",
        wait="5m",
        severity="ticket",
        summary="The event loop of {{ $labels.instance }} is {{ $value | humanizeDuration }} late",
        description="Every token of every stream waits that long at times: a plugin blocks, or the processor is busy.",
        board="predawn-runtime",
    )
    yield Alert(
        name="PredawnReloadFailed",
        expr=f"{failed_reloads} > 0",
        wait="0m",
        severity="ticket",
        summary="{{ $labels.instance }} could not read its settings again",
        description="It goes on with the settings it had. `predawn check FILE` says what is wrong.",
        board="predawn-runtime",
    )
    yield Alert(
        name="PredawnHookErrors",
        expr=lately.rate("hook_errors_total", by=("job", "plugin", "hook", "reason")) + " > 0.1",
        wait="10m",
        severity="ticket",
        summary="{{ $labels.plugin }} fails in {{ $labels.hook }} ({{ $labels.reason }})",
        description="{{ $value | humanize }} calls a second. An editor that fails answers 502; a decider is passed "
        "over; an observer loses records.",
        board="predawn-runtime",
    )


def _upstreams() -> Iterator[Alert]:
    lately = over("5m")
    by = ("job", "upstream")
    starts = lately.pick("engine_starts_total")
    yield Alert(
        name="PredawnStreamsTruncated",
        expr=share(
            lately.rate("upstream_errors_total", 'reason="truncated"', by=by),
            lately.rate("upstream_duration_seconds", by=by, part="count"),
        )
        + " > 0.01",
        wait="5m",
        severity="page",
        summary="{{ $labels.upstream }} cuts {{ $value | humanizePercentage }} of its answers short",
        description="Clients see text that stops in the middle, and an error event. Nothing can be retried then.",
        board="predawn-runtime",
    )
    yield Alert(
        name="PredawnBreakerOpen",
        expr=f"max by (job, upstream) (max_over_time({over('1m').pick('upstream_breaker_state')}[1m])) == 2",
        wait="2m",
        severity="page",
        summary="{{ $labels.upstream }} failed so often that it is left alone",
        description="Its requests go to fallbacks, or are answered with 503 where there is none.",
        board="predawn-runtime",
    )
    yield Alert(
        name="PredawnEngineRestarts",
        # not an engine's first start, nor those of many processes added up
        expr=f"sum by (job, upstream) (increase({starts}[30m]) > 0.5 and last_over_time({starts}[5m]) > 1)",
        wait="0m",
        severity="ticket",
        summary="The local engine of {{ $labels.upstream }} died and was started again",
        description="Requests that it held were answered with an error. The server's log has the engine's last words.",
        board="predawn-runtime",
    )


def _features() -> Iterator[Alert]:
    hour, lately = over("1h"), over("10m")
    known = 'result=~"hit|stale"'
    yield Alert(
        name="PredawnSleepBacklogOld",
        expr=f"max by (job) ({hour.pick('sleep_oldest_job_age_seconds')}) > 21600",
        wait="15m",
        severity="ticket",
        summary="A context has waited {{ $value | humanizeDuration }} to be slept on",
        description="Sleep gets no time: upstreams are never idle, its hours are too short, or the day's tokens are "
        "spent. Notes grow stale.",
        board="predawn-sleep",
    )
    yield Alert(
        name="PredawnStaleHits",
        expr=share(
            hour.rate("context_lookups_total", 'result="stale"', by=("job",)),
            hour.rate("context_lookups_total", known, by=("job",)),
        )
        + f" > 0.5 and {hour.increase('context_lookups_total', known, by=('job',))} > 20",
        wait="30m",
        severity="ticket",
        summary="{{ $value | humanizePercentage }} of requests with notes get those of an older version",
        description="Contexts change faster than they are slept on.",
        board="predawn-sleep",
    )
    yield Alert(
        name="PredawnVerifierErrors",
        expr=share(
            lately.rate("verifier_checks_total", 'verdict=~"error|timeout|shed"', by=("job", "verifier")),
            lately.rate("verifier_checks_total", by=("job", "verifier")),
        )
        + " > 0.05",
        wait="10m",
        severity="ticket",
        summary="{{ $labels.verifier }} gives no verdict on {{ $value | humanizePercentage }} of what it is shown",
        description="It fails, is too slow, or has too much to do. What it did not look at may be wrong.",
        board="predawn-verification",
    )
    yield Alert(
        name="PredawnBudgetExhausted",
        expr=share(
            over("15m").rate("budget_exhausted_total", by=("job",)),
            over("15m").rate("budget_granted_tokens", by=("job",), part="count"),
        )
        + " > 0.1",
        wait="15m",
        severity="ticket",
        summary="{{ $value | humanizePercentage }} of requests meet a ceiling of their budget",
        description="They get less than they would need, or 429. Raise a ceiling, or lower what tiers are given.",
        board="predawn-budgets",
    )
