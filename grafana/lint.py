"""Reads the written dashboards as a stranger would, and says what is wrong with them.

It looks at JSON, not at the code that wrote it, so that a mistake in the builder is found, too. Whether a query gives
anything only a Prometheus can tell: `make test-dashboards` asks one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import Any, Final

from grafana.metrics import PROCESS, known
from grafana.model.dashboard import COLUMNS, SCHEMA
from grafana.model.query import SOURCE
from grafana.model.unit import Unit
from grafana.reading import complaints, grouped, placeholders, selectors, windows

KINDS: Final = ("bargauge", "heatmap", "stat", "state-timeline", "table", "timeseries")
USUAL: Final = "$__rate_interval"
VARIABLES: Final = {"datasource", "job"}
"""Every dashboard has them."""

Json = Mapping[str, Any]


def dashboard_complaints(board: Json) -> Iterator[str]:
    """Everything that is wrong with one dashboard, each with the panel it is about."""
    yield from _head(board)
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    yield from _twice("id", (panel["id"] for panel in board["panels"]))
    yield from _twice("title", (panel["title"] for panel in panels))
    yield from _grid(board["panels"])
    names = {variable["name"] for variable in board["templating"]["list"]}
    for panel in panels:
        for complaint in _panel(panel, names):
            yield f"{panel['title']}: {complaint}"


def unused(boards: Iterable[Json]) -> set[str]:
    """Metrics that no panel shows."""
    shown = {
        found.metric.name
        for board in boards
        for panel in board["panels"]
        for target in panel.get("targets", ())
        for found in selectors(target["expr"])
        if found.metric is not None
    }
    return set(known()) - set(PROCESS) - shown


def _head(board: Json) -> Iterator[str]:
    if not board["uid"] or len(board["uid"]) > 40:
        yield "a uid has 1 to 40 characters"
    if board["schemaVersion"] != SCHEMA:
        yield f"schema {board['schemaVersion']}, not {SCHEMA}"
    if not board["description"]:
        yield "it has no description"
    missing = VARIABLES - {variable["name"] for variable in board["templating"]["list"]}
    if missing:
        yield f"it has no variable {', '.join(sorted(missing))}"


def _twice(what: str, values: Iterable[Any]) -> Iterator[str]:
    yield from (f"{what} {value!r} comes {times} times" for value, times in Counter(values).items() if times > 1)


def _grid(panels: Iterable[Json]) -> Iterator[str]:
    places = [(panel["title"], panel["gridPos"]) for panel in panels]
    for title, place in places:
        if place["x"] < 0 or place["w"] < 1 or place["h"] < 1 or place["x"] + place["w"] > COLUMNS:
            yield f"{title}: beyond the {COLUMNS} columns"
    for (title, one), (other_title, other) in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        if not (beside or below):
            yield f"{title}: on top of {other_title}"


def _panel(panel: Json, variables: set[str]) -> Iterator[str]:
    defaults = panel["fieldConfig"]["defaults"]
    if panel["type"] not in KINDS:
        yield f"no panel of ours is a {panel['type']}"
    if len(panel.get("description", "")) < 10 or not panel["description"].endswith((".", "?")):
        yield "it has no description, or none that is a sentence"
    unit = panel["options"]["yAxis"]["unit"] if panel["type"] == "heatmap" else defaults.get("unit")
    if unit not in {known_unit.value for known_unit in Unit}:
        yield f"unit {unit!r} is none that we know"
    if panel["datasource"] != SOURCE or any(target["datasource"] != SOURCE for target in panel["targets"]):
        yield "it asks another source than ${datasource}"
    if not panel["targets"]:
        yield "it asks nothing"
    yield from _twice("query", (target["refId"] for target in panel["targets"]))
    yield from _twice("legend", (target["legendFormat"] for target in panel["targets"]))
    for target in panel["targets"]:
        yield from _target(target, panel, variables)


def _target(target: Json, panel: Json, variables: set[str]) -> Iterator[str]:
    expr, legend = target["expr"], target["legendFormat"]
    yield from complaints(expr)
    if not legend:
        yield "a query has no legend"
    if panel["type"] == "heatmap" and (target["format"] != "heatmap" or "le" not in grouped(expr)):
        yield "a heatmap needs buckets"
    missing = placeholders(legend) - grouped(expr) - {"instance", "le"}
    if missing:
        yield f"the legend names {', '.join(sorted(missing))}, by which nothing is grouped"
    for window in sorted(windows(expr) - {USUAL}):
        told = f"{panel['title']} {legend} {panel['description']}".replace(" ", "")
        if (window if window != "$__range" else "span") not in told:
            yield f"it looks at {window} and not at {USUAL}, and says so nowhere"
    for name in sorted(_named(expr) - variables):
        yield f"there is no variable ${name}"


def _named(expr: str) -> set[str]:
    """Variables of a dashboard in a query; Grafana's own begin with two underscores."""
    parts = expr.split("$")[1:]
    words = ("".join(_leading_word(part)) for part in parts)
    return {word for word in words if word and not word.startswith("__")}


def _leading_word(text: str) -> Iterator[str]:
    for character in text:
        if not (character.isalnum() or character == "_"):
            return
        yield character
