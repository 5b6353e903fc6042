"""The metrics that there are, with their labels: what the proxy declares, and what a process tells of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Final

PREFIX: Final = "predawn_"
SCRAPED: Final = frozenset({"job", "instance"})
"""Labels that Prometheus adds to everything."""
PROCESS: Final = (
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_start_time_seconds",
)
"""Metrics of the process that the dashboards show; prometheus_client makes them."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of a running Predawn."""

    name: str
    kind: str
    labels: frozenset[str]
    bounds: tuple[float, ...] = ()
    help: str = ""


@cache
def known() -> Mapping[str, Metric]:
    """Every metric by its whole name, as in a query."""
    from prometheus_client import CollectorRegistry

    from predawn.proxy.metrics import Metrics, families

    own = (
        Metric(family.name, family.kind, frozenset(family.labels), family.bounds, family.help)
        for family in families(Metrics(CollectorRegistry()))
    )
    process = (Metric(name, "gauge", frozenset()) for name in PROCESS)
    return MappingProxyType({metric.name: metric for metric in (*own, *process)})


def named(name: str) -> Metric:
    """The metric of this name, with or without `predawn_`; an unknown one is an error here, not an empty panel."""
    found = known().get(f"{PREFIX}{name}") or known().get(name)
    if found is None:
        raise LookupError(f"there is no metric {name!r}: proxy/metrics.py declares them")
    return found
