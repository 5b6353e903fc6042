"""What a panel shows: its queries' answers, each line with its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from grafana.asking import Prometheus, Series, Span
from grafana.checking import asked

SIDE_BY_SIDE: Final = 4
_PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Line:
    """A series and what the legend calls it."""

    name: str
    series: Series


def named(legend: str, labels: Mapping[str, str]) -> str:
    """`{{model}} {{type}}` with a series' own values."""
    return " ".join(_PLACEHOLDER.sub(lambda found: labels.get(found[1], ""), legend).split())


def lines(panel: Mapping[str, Any], prometheus: Prometheus, span: Span) -> list[Line]:
    """All lines of a panel, in the order of its queries."""
    return [
        Line(named(target["legendFormat"], series.labels), series)
        for target in panel["targets"]
        for series in asked(target, prometheus, span)
    ]


def answers(board: Mapping[str, Any], prometheus: Prometheus, span: Span) -> dict[int, list[Line]]:
    """The lines of every panel, by the panel's id."""
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        found = pool.map(lambda panel: lines(panel, prometheus, span), panels)
        return {panel["id"]: told for panel, told in zip(panels, found, strict=True)}
