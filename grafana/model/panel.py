"""Panels: what each kind needs to say to be drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from grafana.model.query import SOURCE, Format, Query
from grafana.model.unit import Unit


@dataclass(frozen=True, slots=True)
class Place:
    """Where a panel is, in Grafana's grid of 24 columns."""

    x: int
    y: int
    width: int
    height: int

    def json(self) -> dict[str, int]:
        return {"h": self.height, "w": self.width, "x": self.x, "y": self.y}


@dataclass(frozen=True, slots=True)
class Step:
    """From `above` on a value has this colour."""

    above: float
    color: str


@dataclass(frozen=True, slots=True)
class Word:
    """A word in place of a number: 2 is `open`, in red."""

    value: int
    text: str
    color: str


@dataclass(frozen=True, kw_only=True)
class Panel:
    """What every panel has. The description answers: what is this, and what should I do about it?"""

    kind: ClassVar[str]
    form: ClassVar[Format] = "time_series"

    title: str
    description: str
    unit: Unit
    queries: tuple[Query, ...]
    width: int = 8
    height: int = 8
    base: str = "green"
    """The colour below the first step."""
    steps: tuple[Step, ...] = ()
    words: tuple[Word, ...] = ()
    low: float | None = 0
    """Smallest value of the axis; none if it may be negative."""
    high: float | None = None
    decimals: int | None = None

    def json(self, ident: int, place: Place) -> dict[str, Any]:
        """As it stands in a dashboard's `panels`."""
        return {
            "datasource": SOURCE,
            "description": self.description,
            "fieldConfig": {"defaults": self._field(), "overrides": self._overrides()},
            "gridPos": place.json(),
            "id": ident,
            "options": self._options(),
            "targets": [query.json(position, self.form) for position, query in enumerate(self.queries)],
            "title": self.title,
            "type": self.kind,
            **self._more(),
        }

    def _field(self) -> dict[str, Any]:
        limits = {"min": self.low, "max": self.high, "decimals": self.decimals}
        return {
            "color": {"mode": "thresholds" if self.steps else "palette-classic"},
            "custom": self._custom(),
            "mappings": self._mappings(),
            "noValue": "0",
            "thresholds": self._thresholds(),
            "unit": self.unit.value,
            **{name: value for name, value in limits.items() if value is not None},
        }

    def _thresholds(self) -> dict[str, Any]:
        lowest = {"color": self.base, "value": None}
        steps = [{"color": step.color, "value": step.above} for step in self.steps]
        return {"mode": "absolute", "steps": [lowest, *steps]}

    def _mappings(self) -> list[dict[str, Any]]:
        if not self.words:
            return []
        told = {
            str(word.value): {"color": word.color, "index": index, "text": word.text}
            for index, word in enumerate(self.words)
        }
        return [{"options": told, "type": "value"}]

    def _custom(self) -> dict[str, Any]:
        return {}

    def _options(self) -> dict[str, Any]:
        raise NotImplementedError

    def _overrides(self) -> list[dict[str, Any]]:
        return []

    def _more(self) -> dict[str, Any]:
        return {}


LAST: dict[str, Any] = {"calcs": ["lastNotNull"], "fields": "", "values": False}


@dataclass(frozen=True, kw_only=True)
class Stat(Panel):
    """One number, large, with its past faintly behind it."""

    kind = "stat"
    width: int = 4
    height: int = 5
    past: bool = True
    """Off where the number is about one span of time, so that its past says little."""

    def _field(self) -> dict[str, Any]:
        field = super()._field()
        return field if self.steps else {**field, "color": {"fixedColor": "blue", "mode": "fixed"}}

    def _options(self) -> dict[str, Any]:
        return {
            "colorMode": "value",
            "graphMode": "area" if self.past else "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "reduceOptions": LAST,
            "textMode": "auto",
        }


@dataclass(frozen=True, kw_only=True)
class Lines(Panel):
    """Values over time."""

    kind = "timeseries"
    stacked: bool = False
    marks: bool = False
    """Draw the steps as lines to stay below, instead of colouring by them."""

    def _field(self) -> dict[str, Any]:
        return {**super()._field(), "color": {"mode": "palette-classic"}}

    def _custom(self) -> dict[str, Any]:
        return {
            "axisPlacement": "auto",
            "drawStyle": "line",
            "fillOpacity": 40 if self.stacked else 8,
            "gradientMode": "none",
            "lineInterpolation": "linear",
            "lineWidth": 1,
            "pointSize": 4,
            "scaleDistribution": {"type": "linear"},
            "showPoints": "auto",
            "spanNulls": False,
            "stacking": {"group": "A", "mode": "normal" if self.stacked else "none"},
            "thresholdsStyle": {"mode": "dashed" if self.marks else "off"},
        }

    def _options(self) -> dict[str, Any]:
        return {
            "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }


@dataclass(frozen=True, kw_only=True)
class Heat(Panel):
    """How often which size was seen, over time. Its query gives a histogram's buckets; the unit is of the sizes."""

    kind = "heatmap"
    form = "heatmap"

    def _field(self) -> dict[str, Any]:
        return {**super()._field(), "color": {"mode": "thresholds"}, "unit": Unit.COUNT.value}

    def _custom(self) -> dict[str, Any]:
        return {"scaleDistribution": {"type": "linear"}}

    def _options(self) -> dict[str, Any]:
        return {
            "calculate": False,
            "cellGap": 1,
            "color": {
                "exponent": 0.5, "fill": "dark-orange", "mode": "scheme", "reverse": False,
                "scale": "exponential", "scheme": "Oranges", "steps": 64,
            },
            "exemplars": {"color": "rgba(255,0,255,0.7)"},
            "filterValues": {"le": 1e-9},
            "legend": {"show": True},
            "rowsFrame": {"layout": "auto"},
            "showValue": "never",
            "tooltip": {"mode": "single", "show": True, "yHistogram": True},  # `show` is what 10.0 to 10.3 read
            "yAxis": {"axisPlacement": "left", "reverse": False, "unit": self.unit.value},
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Bars(Panel):
    """The latest values side by side, the largest telling how long a bar is."""

    kind = "bargauge"

    def _field(self) -> dict[str, Any]:
        field = super()._field()
        return field if self.steps else {**field, "color": {"mode": "palette-classic"}}

    def _options(self) -> dict[str, Any]:
        return {
            "displayMode": "basic",
            "minVizHeight": 10,
            "minVizWidth": 0,
            "orientation": "horizontal",
            "reduceOptions": LAST,
            "showUnfilled": True,
            "valueMode": "color",
        }


@dataclass(frozen=True, kw_only=True)
class States(Panel):
    """Which state something was in, over time; `words` are the states."""

    kind = "state-timeline"

    def _field(self) -> dict[str, Any]:
        return {**super()._field(), "color": {"mode": "thresholds"}}

    def _custom(self) -> dict[str, Any]:
        return {"fillOpacity": 80, "lineWidth": 0}

    def _options(self) -> dict[str, Any]:
        return {
            "alignValue": "left",
            "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
            "mergeValues": True,
            "rowHeight": 0.9,
            "showValue": "auto",
            "tooltip": {"mode": "single", "sort": "none"},
        }


@dataclass(frozen=True, kw_only=True)
class Table(Panel):
    """The labels of what there is now, one line each. `columns` are labels, in order; all others are hidden."""

    kind = "table"
    form = "table"
    columns: tuple[str, ...]
    value: str | None = None
    """What the column of values is called; hidden if absent."""

    def _field(self) -> dict[str, Any]:
        return {**super()._field(), "color": {"mode": "thresholds"}}

    def _custom(self) -> dict[str, Any]:
        return {"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False}

    def _options(self) -> dict[str, Any]:
        return {"cellHeight": "sm", "showHeader": True}

    def _more(self) -> dict[str, Any]:
        shown = [*self.columns, *(["Value"] if self.value else [])]
        hidden = ["Time", *([] if self.value else ["Value"])]
        return {
            "transformations": [
                {
                    "id": "organize",
                    "options": {
                        "excludeByName": dict.fromkeys(hidden, True),
                        "indexByName": {name: index for index, name in enumerate(shown)},
                        "renameByName": {"Value": self.value} if self.value else {},
                    },
                }
            ]
        }
