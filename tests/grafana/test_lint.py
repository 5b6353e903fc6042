"""The lint finds nothing in our dashboards, and everything in broken ones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from grafana.lint import dashboard_complaints, unused
from tests.grafana.boards import panels, written

BOARDS = written()


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board["uid"])
def test_our_dashboards_are_well(board) -> None:
    assert list(dashboard_complaints(board)) == []


def test_every_metric_is_in_a_dashboard() -> None:
    assert unused(BOARDS) == set()


def test_a_metric_that_no_panel_shows_is_named() -> None:
    fewer = [board for board in BOARDS if board["uid"] != "predawn-verification"]

    assert "predawn_verifier_duration_seconds" in unused(fewer)


def first(board: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(panel for panel in panels(board) if panel["type"] == kind)


def line(board: dict[str, Any]) -> dict[str, Any]:
    return first(board, "timeseries")


def asks(expr: str) -> Callable[[dict[str, Any]], None]:
    def change(board: dict[str, Any]) -> None:
        line(board)["targets"][0]["expr"] = expr

    return change


def sets(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(board: dict[str, Any]) -> None:
        *way, last = path.split(".")
        place: Any = line(board)
        for name in way:
            place = place[int(name) if name.isdigit() else name]
        place[last] = value

    return change


def same_ids(board: dict[str, Any]) -> None:
    board["panels"][1]["id"] = board["panels"][2]["id"]


def same_place(board: dict[str, Any]) -> None:
    board["panels"][2]["gridPos"] = board["panels"][1]["gridPos"]


def no_variable(board: dict[str, Any]) -> None:
    board["templating"]["list"] = [one for one in board["templating"]["list"] if one["name"] != "model"]


def no_job(board: dict[str, Any]) -> None:
    board["templating"]["list"] = [one for one in board["templating"]["list"] if one["name"] != "job"]


def no_buckets(board: dict[str, Any]) -> None:
    first(board, "heatmap")["targets"][0]["format"] = "time_series"


BROKEN: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (asks("sum(rate(predawn_reqests_total[$__rate_interval]))"), "there is no metric predawn_reqests_total"),
    (asks("sum(rate(predawn_request_duration_seconds[$__rate_interval]))"), "there is no metric"),
    (asks("sum(rate(predawn_requests_total_count[$__rate_interval]))"), "there is no metric"),
    (asks('sum(rate(predawn_requests_total{status="500"}[$__rate_interval]))'), "has no label status"),
    (asks("sum by (plugin) (rate(predawn_requests_total[$__rate_interval]))"), "grouped by plugin"),
    (asks("sum(rate(predawn_requests_total[5m]))"), "it looks at 5m and not at $__rate_interval"),
    (asks("sum(rate(predawn_requests_total[$__interval]))"), "it looks at $__interval"),
    (asks("sum(predawn_requests_total)"), "grows for ever"),
    (asks("sum(rate(predawn_requests_total[$__rate_interval])"), "brackets do not match"),
    (asks('sum(rate(predawn_requests_total{model=~"$modle"}[$__rate_interval]))'), "there is no variable $modle"),
    (sets("targets.0.legendFormat", ""), "a query has no legend"),
    (sets("targets.0.legendFormat", "{{plugin}}"), "the legend names plugin"),
    (sets("targets.0.datasource", {"type": "prometheus", "uid": "mine"}), "another source"),
    (sets("targets", []), "it asks nothing"),
    (sets("description", ""), "no description"),
    (sets("description", "Requests by status"), "none that is a sentence"),
    (sets("fieldConfig.defaults.unit", "furlongs"), "unit 'furlongs'"),
    (sets("type", "graph"), "no panel of ours is a graph"),
    (sets("title", "First token, p95"), "comes 2 times"),
    (sets("gridPos.w", 25), "beyond the 24 columns"),
    (same_ids, "comes 2 times"),
    (same_place, "on top of"),
    (no_variable, "there is no variable $model"),
    (no_job, "it has no variable job"),
    (no_buckets, "a heatmap needs buckets"),
]


@pytest.mark.parametrize(("spoil", "complaint"), BROKEN, ids=[complaint for _, complaint in BROKEN])
def test_a_broken_panel_is_found(spoil, complaint) -> None:
    board = copy.deepcopy(BOARDS[0])

    spoil(board)

    assert any(complaint in found for found in dashboard_complaints(board))
