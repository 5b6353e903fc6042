"""Rows of panels, and the dashboard they make."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from grafana.model.panel import Panel, Place
from grafana.model.query import SOURCE

COLUMNS: Final = 24
SCHEMA: Final = 38
"""Of Grafana 10.0; later ones migrate it as they load it."""
TAG: Final = "predawn"


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading, from left to right; what does not fit goes below."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Variable:
    """A label by which everything is narrowed down; its values are those that `metric` has."""

    label: str
    title: str
    description: str
    metric: str

    def json(self) -> dict[str, Any]:
        query = f"label_values({self.metric}, {self.label})"
        return {
            "allValue": ".*",
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
            "datasource": SOURCE,
            "definition": query,
            "description": self.description,
            "hide": 0,
            "includeAll": True,
            "label": self.title,
            "multi": True,
            "name": self.label,
            "options": [],
            "query": {"query": query, "refId": "StandardVariableQuery"},
            "refresh": 2,
            "regex": "",
            "skipUrlSync": False,
            "sort": 1,
            "type": "query",
        }


@dataclass(frozen=True, slots=True)
class Annotation:
    """Moments that explain a bend in a line."""

    name: str
    expr: str
    title: str
    color: str

    def json(self) -> dict[str, Any]:
        return {
            "datasource": SOURCE,
            "enable": True,
            "expr": self.expr,
            "hide": False,
            "iconColor": self.color,
            "name": self.name,
            "step": "",
            "tagKeys": "",
            "titleFormat": self.title,
            "useValueForTime": "off",
        }


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One page."""

    uid: str
    title: str
    description: str
    rows: Sequence[Row]
    variables: Sequence[Variable] = ()
    annotations: Sequence[Annotation] = ()
    span: str = "now-6h"

    def json(self) -> dict[str, Any]:
        """As Grafana imports it, and as its provisioning reads it."""
        return {
            "annotations": {"list": [annotation.json() for annotation in self.annotations]},
            "description": self.description,
            "editable": True,
            "fiscalYearStartMonth": 0,
            "graphTooltip": 1,
            "links": [_links()],
            "panels": list(self._panels()),
            "refresh": "30s",
            "schemaVersion": SCHEMA,
            "tags": [TAG],
            "templating": {"list": [_source(), *(variable.json() for variable in self.variables)]},
            "time": {"from": self.span, "to": "now"},
            "timepicker": {},
            "timezone": "browser",
            "title": self.title,
            "uid": self.uid,
            "version": 1,
            "weekStart": "",
        }

    def _panels(self) -> Iterator[dict[str, Any]]:
        ident, y = 1, 0
        for row in self.rows:
            yield {
                "collapsed": False, "gridPos": Place(0, y, COLUMNS, 1).json(), "id": ident, "panels": [],
                "title": row.title, "type": "row",
            }  # fmt: skip
            ident, y = ident + 1, y + 1
            for panel, place in placed(row.panels, y):
                yield panel.json(ident, place)
                ident, bottom = ident + 1, place.y + place.height
                y = max(y, bottom)


def placed(panels: Sequence[Panel], top: int) -> Iterator[tuple[Panel, Place]]:
    """Each panel and where it goes: beside the last one, or below the highest of that line."""
    x, line_height = 0, 0
    for panel in panels:
        if x + panel.width > COLUMNS:
            x, top, line_height = 0, top + line_height, 0
        yield panel, Place(x, top, panel.width, panel.height)
        x, line_height = x + panel.width, max(line_height, panel.height)


def _links() -> dict[str, Any]:
    """A list of the other dashboards, in the corner; the span and the variables go along."""
    return {
        "asDropdown": True, "icon": "external link", "includeVars": True, "keepTime": True, "tags": [TAG],
        "targetBlank": False, "title": "Predawn", "tooltip": "The other dashboards", "type": "dashboards", "url": "",
    }  # fmt: skip


def _source() -> dict[str, Any]:
    """Which Prometheus: the first thing that an import asks for."""
    return {
        "description": "The Prometheus that scrapes Predawn", "hide": 0, "includeAll": False,
        "label": "Prometheus", "multi": False, "name": "datasource", "options": [], "query": "prometheus",
        "refresh": 1, "regex": "", "skipUrlSync": False, "type": "datasource",
    }  # fmt: skip
