"""Recording rules: what alerts read often, and what is too long to add up whenever somebody looks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from grafana.objectives import OBJECTIVES, WINDOWS, Objective
from grafana.promql import Reader

BY_JOB: Final = ("job",)
OVERHEAD: Final = "predawn:overhead_seconds:p99_rate5m"
LAG: Final = "predawn:event_loop_lag_seconds:p99_rate5m"


def over(window: str) -> Reader:
    """Rules have no variables: they are about everything that is scraped."""
    return Reader(window=window, filters={})


def missed(window: str) -> str:
    """The recorded share of bad requests, by `job` and `slo`."""
    return f"predawn:slo_missed:ratio_rate{window}"


def groups() -> Iterator[dict[str, Any]]:
    """As they stand in a rule file."""
    yield {
        "name": "predawn-objectives",
        "interval": "30s",
        "rules": [_objective(objective, window) for objective in OBJECTIVES for window in WINDOWS],
    }
    lately = over("5m")
    yield {
        "name": "predawn-latency",
        "interval": "30s",
        "rules": [
            {"record": OVERHEAD, "expr": lately.quantile(0.99, "overhead_seconds", by=BY_JOB)},
            {"record": LAG, "expr": lately.quantile(0.99, "event_loop_lag_seconds", by=(*BY_JOB, "instance"))},
        ],
    }


def _objective(objective: Objective, window: str) -> dict[str, Any]:
    return {
        "record": missed(window),
        "expr": objective.missed(over(window), *BY_JOB),
        "labels": {"slo": objective.name},
    }
