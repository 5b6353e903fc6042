"""Reads PromQL as far as the lint needs it: which metrics, labels and windows a query names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from grafana.metrics import SCRAPED, Metric, known

PARTS: Final = ("bucket", "sum", "count")
_SELECTOR = re.compile(r"\b((?:predawn|process)_\w+)\s*(?:\{([^}]*)\})?\s*(?:\[([^\]]+)\])?")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"[^"]*"')
_GROUPED = re.compile(r"\bby\s*\(([^)]*)\)")
_MADE = re.compile(r'label_replace\(.*?, "(\w+)"')
_WINDOW = re.compile(r"\[([^\]]+)\]")
_PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Selector:
    """`predawn_requests_total{code="200"}[5m]`"""

    name: str
    labels: tuple[str, ...]
    window: str

    @property
    def metric(self) -> Metric | None:
        """What it selects; none if there is no such thing."""
        exact = known().get(self.name)
        if exact is not None:
            return exact if exact.kind != "histogram" else None
        base, _, part = self.name.rpartition("_")
        found = known().get(base)
        return found if found is not None and found.kind == "histogram" and part in PARTS else None


def selectors(expr: str) -> Iterator[Selector]:
    """Those of Predawn and its process."""
    for name, labels, window in _SELECTOR.findall(expr):
        yield Selector(name, tuple(_MATCHER.findall(labels)), window)


def windows(expr: str) -> set[str]:
    """`[5m]` and its like."""
    return set(_WINDOW.findall(expr))


def grouped(expr: str) -> set[str]:
    """Labels by which something is added up."""
    return {label.strip() for group in _GROUPED.findall(expr) for label in group.split(",")}


def placeholders(legend: str) -> set[str]:
    """`{{label}}` in a legend."""
    return set(_PLACEHOLDER.findall(legend))


def complaints(expr: str) -> Iterator[str]:
    """What is wrong with a query, whatever it is for."""
    found = list(selectors(expr))
    there: set[str] = {"le", *SCRAPED}
    for selector in found:
        metric = selector.metric
        if metric is None:
            yield f"there is no metric {selector.name}"
            continue
        there |= metric.labels
        unknown = sorted(set(selector.labels) - metric.labels - SCRAPED - {"le"})
        if unknown:
            yield f"{selector.name} has no label {', '.join(unknown)}"
        if metric.kind in {"histogram", "counter"} and not selector.window:
            yield f"{selector.name} grows for ever: it needs rate or increase"
    # rules name recorded series, whose labels are not declared anywhere
    recorded = "predawn:" in expr
    missing = sorted(grouped(expr) - there) if not recorded else []
    if missing:
        yield f"grouped by {', '.join(missing)}, which none of its metrics has"
    if expr.count("(") != expr.count(")"):
        yield "brackets do not match"
