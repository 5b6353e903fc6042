"""Pictures are drawn of what a Prometheus says, whatever it says."""

from __future__ import annotations

import math
from typing import Any

import pytest
from grafana.asking import AskingError, Series, Span
from grafana.render import __main__ as command
from grafana.render.answers import Line, lines, named
from grafana.render.words import written
from tests.grafana.boards import panels
from tests.grafana.boards import written as boards

SPAN = Span(1_790_000_000, 1_790_000_600, 15)
MATPLOTLIB = pytest.importorskip("matplotlib")


@pytest.mark.parametrize(
    ("value", "unit", "told"),
    [
        (0.0123, "s", "12.3 ms"),
        (0.00005, "s", "50 µs"),
        (90.0, "s", "1.5 min"),
        (0.0, "s", "0 s"),
        (0.5, "percentunit", "50%"),
        (1234.0, "count:tok", "1.23 K tok"),
        (2_500_000.0, "count:tok/s", "2.5 M tok/s"),
        (0.25, "reqps", "0.25 req/s"),
        (14.4, "suffix:×", "14.4×"),
        (1536.0, "bytes", "1.5 KiB"),
        (7.0, "short", "7"),
        (None, "short", "-"),
        (math.nan, "s", "-"),
    ],
)
def test_numbers_are_written_as_grafana_writes_them(value, unit, told) -> None:
    assert written(value, unit) == told


def test_digits_can_be_told() -> None:
    assert written(0.00123, "percentunit", 2) == "0.12%"
    assert written(2.0, "short", 1) == "2.0"


def test_a_legend_is_filled_in_from_labels() -> None:
    assert named("{{model}} {{type}}", {"model": "m"}) == "m"
    assert named("p50", {"model": "m"}) == "p50"


class Played:
    """A Prometheus that says the same to every query."""

    def __init__(self, *values: float) -> None:
        points = tuple((SPAN.start + 15 * at, value) for at, value in enumerate(values))
        self.said = [Series({"le": le, "model": "m"}, points) for le in ("0.1", "1", "+Inf")] if values else []

    def over(self, expr: str, span: Span) -> list[Series]:
        return self.said

    at = over


@pytest.mark.parametrize(
    "values",
    [(), (0.0, 0.0, 0.0), (math.nan, math.nan), (1.0, math.nan, 3.0, math.inf, 2.0)],
    ids=["nothing", "zeros", "no numbers", "all kinds"],
)
def test_a_dashboard_can_be_drawn_whatever_prometheus_says(tmp_path, values) -> None:
    from grafana.render.page import draw

    board = small()
    played: Any = Played(*values)
    told = {panel["id"]: lines(panel, played, SPAN) for panel in panels(board)}
    draw(board, told, SPAN, tmp_path / "board.png")

    assert (tmp_path / "board.png").read_bytes().startswith(b"\x89PNG")


def small() -> dict[str, Any]:
    """A dashboard with one panel of each kind."""
    board = boards()[4]
    kinds = {panel["type"]: panel for panel in panels(board)}
    for at, panel in enumerate(kinds.values()):
        panel["gridPos"] = {"x": 4 * at, "y": 1, "w": 4, "h": 6}
    board["panels"] = [board["panels"][0], *kinds.values()]
    assert len(kinds) == 6
    return board


def test_every_kind_of_panel_we_use_can_be_drawn() -> None:
    from grafana.render.kinds import DRAWN

    assert {panel["type"] for board in boards() for panel in panels(board)} == set(DRAWN)


def test_a_heatmap_shows_where_observations_fell_and_not_their_sums() -> None:
    from grafana.render.kinds import heatmap
    from matplotlib.figure import Figure

    (panel,) = [one for one in panels(small()) if one["type"] == "heatmap"]
    rows = [
        Line("", Series({"le": le}, ((SPAN.start, count),))) for le, count in (("0.1", 4.0), ("1", 4.0), ("+Inf", 9.0))
    ]
    axes = Figure().add_subplot()
    heatmap(axes, panel, rows, SPAN)
    (drawn,) = axes.collections
    column = drawn.get_array()[:, 0]  # type: ignore[index]

    assert [float(value) ** 2 for value in column.filled(0)] == pytest.approx([4, 0, 5])


def test_without_a_prometheus_the_command_says_so(tmp_path, capsys) -> None:
    status = command.main(["--prometheus", "http://127.0.0.1:9", "--to", str(tmp_path)])

    assert status == 1
    assert "did not answer" in capsys.readouterr().err


def test_what_was_asked_wrongly_is_an_error_and_no_empty_panel() -> None:
    class Refusing(Played):
        def over(self, expr: str, span: Span) -> list[Series]:
            raise AskingError("400: parse error")

        at = over

    played: Any = Refusing()
    with pytest.raises(AskingError, match="parse error"):
        lines(panels(boards()[0])[0], played, SPAN)


def test_the_first_rows_of_a_dashboard_end_where_the_next_row_begins() -> None:
    from grafana.render.page import first_rows

    overview = boards()[0]
    shown = first_rows(overview, 2)["panels"]

    assert [panel["title"] for panel in shown if panel["type"] == "row"] == [
        panel["title"] for panel in overview["panels"] if panel["type"] == "row"
    ][:2]
    assert shown[-1]["title"] == "In flight"
    assert first_rows(overview, 99) == overview
