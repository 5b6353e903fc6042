"""What more than one dashboard shows, and the words they share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from grafana.model.dashboard import Annotation, Variable
from grafana.model.panel import Heat, Lines
from grafana.model.query import Query
from grafana.model.unit import Unit
from grafana.promql import Reader, or_else, or_zero

READ: Final = Reader()
"""Over Grafana's own interval, narrowed down by the variables."""
DAY: Final = Reader(window="24h")
EVERYTHING: Final = Reader(filters={"job": "$job"})
"""Not narrowed down by model and upstream, for what belongs to none."""
RANGE: Final = Reader(window="$__range")
"""Over all that the dashboard shows."""
QUANTILES: Final = (0.5, 0.9, 0.99)
EXEMPLARS: Final = frozenset(
    {
        "request_duration_seconds",
        "time_to_first_token_seconds",
        "inter_token_latency_seconds",
        "max_token_gap_seconds",
        "overhead_seconds",
        "upstream_duration_seconds",
    }
)
"""Metrics that keep the id of one exchange for each bucket."""
GREEN, YELLOW, RED = "green", "yellow", "red"
PHASES: Final = (
    ("sleep", "before (sleep)"),
    ("serve", "during (answers)"),
    ("verify", "alongside (verify)"),
    ("discarded", "thrown away"),
)
"""Of tokens, and what they are called."""

JOB: Final = Variable("job", "Job", "Prometheus' name for a deployment of Predawn.", "predawn_build_info")
MODEL: Final = Variable(
    "model", "Model", "Aliases of the settings; `other` is every name that is none.", "predawn_requests_total"
)
UPSTREAM: Final = Variable(
    "upstream", "Upstream", "Upstreams of the settings; `none` had no upstream's answer.", "predawn_requests_total"
)
TENANTS: Final = Variable(
    "tenant_class",
    "Tenant class",
    "Classes of tenants from the settings; narrows down the panels about tenants, which say so.",
    "predawn_tenant_requests_total",
)

RELOADED: Final = Annotation(
    "Settings reloaded",
    f"sum by (outcome) (increase({READ.pick('config_reloads_total')}[$__rate_interval])) > 0",
    "settings reloaded: {{outcome}}",
    "blue",
)
FIRING: Final = Annotation(
    "Alerts", 'ALERTS{alertname=~"Predawn.*", alertstate="firing"}', "{{alertname}} ({{severity}})", RED
)
ANNOTATIONS: Final = (RELOADED, FIRING)


def heat(
    title: str,
    description: str,
    metric: str,
    *matchers: str,
    unit: Unit = Unit.SECONDS,
    width: int = 8,
    height: int = 8,
) -> Heat:
    """A histogram as it changes; single requests are points on it where they were kept."""
    buckets = or_else(READ.buckets(metric, *matchers), 0, le="+Inf")  # a bucket, or Grafana draws nothing at all
    queries = (Query(buckets, "{{le}}", exemplars=metric in EXEMPLARS),)
    return Heat(title=title, description=description, unit=unit, queries=queries, width=width, height=height)


def quantiles(
    title: str,
    description: str,
    metric: str,
    *matchers: str,
    unit: Unit = Unit.SECONDS,
    width: int = 8,
    height: int = 8,
) -> Lines:
    """The middle one, one in ten, one in a hundred; with a gap where nothing was seen."""
    queries = tuple(
        Query(or_zero(READ.quantile(share, metric, *matchers)), f"p{share * 100:g}", exemplars=metric in EXEMPLARS)
        for share in QUANTILES
    )
    return Lines(title=title, description=description, unit=unit, queries=queries, width=width, height=height)


def quantile_by(
    title: str,
    description: str,
    metric: str,
    by: Iterable[str],
    *matchers: str,
    share: float = 0.95,
    unit: Unit = Unit.SECONDS,
    width: int = 8,
    height: int = 8,
) -> Lines:
    """One quantile, a line for each value of the labels `by`."""
    labels = tuple(by)
    legend = " ".join(f"{{{{{label}}}}}" for label in labels)
    queries = (Query(or_zero(READ.quantile(share, metric, *matchers, by=labels), *labels), legend),)
    return Lines(title=title, description=description, unit=unit, queries=queries, width=width, height=height)
