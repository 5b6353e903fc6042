"""Which panels show nothing: every query of a dashboard, asked of a running Prometheus."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from grafana.asking import AskingError, Prometheus, Series, Span

_FILLED = re.compile(r"^\((.*)\) or on\(\) (?:label_replace\(|vector\().*$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Silence:
    """A query that shows nothing, and why."""

    board: str
    panel: str
    legend: str
    why: str

    def __str__(self) -> str:
        return f"{self.board}: {self.panel}: {self.legend}: {self.why}"


def asked(target: Mapping[str, Any], prometheus: Prometheus, span: Span) -> list[Series]:
    """What Grafana would get for one query of a panel."""
    ask = prometheus.at if target["instant"] else prometheus.over
    return ask(target["expr"], span)


def bare(expr: str) -> str:
    """A query without the zero that stands in for what it does not find."""
    found = _FILLED.match(expr)
    return found[1] if found else expr


def silent(board: Mapping[str, Any], prometheus: Prometheus, span: Span, *, used: bool) -> Iterator[Silence]:
    """Queries of a dashboard that show nothing.

    `used`: everything has happened, so each must tell something that is not 0, its stand-in zero left out. Otherwise
    nothing has happened yet, and a 0, or a line without a value, is enough.
    """
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            wanted = {**target, "expr": bare(target["expr"])} if used else target
            try:
                lines = asked(wanted, prometheus, span)
            except AskingError as exc:
                why = str(exc)
            else:
                why = _says_nothing(lines, used=used)
            if why:
                yield Silence(board["uid"], panel["title"], target["legendFormat"], why)


def _says_nothing(lines: list[Series], *, used: bool) -> str:
    if not lines:
        return "no data"
    if not used:
        return ""
    values = [value for line in lines for _, value in line.finite]
    if not values:
        return "not a number"
    return "" if any(values) else "only 0"
