"""A whole dashboard as one picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from grafana.render import look
from grafana.render.kinds import DRAWN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from grafana.asking import Span
    from grafana.render.answers import Line

HEAD_IN: Final = 0.62
TITLE_IN: Final = 0.30
ROW_TITLE_IN: Final = 0.30
DPI: Final = 100
COLORS: Final = 256
_BARE: Final = frozenset({"stat", "bargauge", "table"})
"""Kinds without axes of their own."""


def first_rows(board: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The dashboard up to so many of its rows, for a page that has little room."""
    heads = [panel["gridPos"]["y"] for panel in board["panels"] if panel["type"] == "row"]
    end = heads[count] if count < len(heads) else math.inf
    return {**board, "panels": [panel for panel in board["panels"] if panel["gridPos"]["y"] < end]}


def draw(board: Mapping[str, Any], answers: Mapping[int, Sequence[Line]], span: Span, path: Path) -> None:
    """Write a dashboard's picture to `path`."""
    from matplotlib.figure import Figure

    panels = board["panels"]
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    width, height = 24 * look.COLUMN_IN + 2 * look.GAP_IN, bottom * look.ROW_IN + HEAD_IN + look.GAP_IN
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=look.PAGE)
    _head(figure, board)
    for panel in panels:
        box = _box(panel["gridPos"], height)
        if panel["type"] == "row":
            _row(figure, panel["title"], box)
        else:
            axes = _panel(figure, panel, box)
            DRAWN[panel["type"]](axes, panel, answers[panel["id"]], span)
    path.parent.mkdir(parents=True, exist_ok=True)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    """With a palette: a third of the bytes, and nobody sees it."""
    from PIL import Image

    drawn = BytesIO()
    figure.savefig(drawn, facecolor=look.PAGE)
    Image.open(drawn).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE).save(path, optimize=True)


Box = tuple[float, float, float, float]
"""Left, bottom, width and height, in inches."""


def _box(place: Mapping[str, int], height: float) -> Box:
    left = look.GAP_IN + place["x"] * look.COLUMN_IN
    top = height - HEAD_IN - place["y"] * look.ROW_IN
    tall = place["h"] * look.ROW_IN
    return left, top - tall, place["w"] * look.COLUMN_IN - look.GAP_IN, tall - look.GAP_IN


def _head(figure: Figure, board: Mapping[str, Any]) -> None:
    wide, height = figure.get_size_inches()
    y = 1 - HEAD_IN * 0.46 / height
    left = look.GAP_IN / wide
    figure.text(left, y, board["title"], color=look.TEXT, fontsize=15, fontweight="bold", va="center")
    figure.text(1 - left, y, board["description"], color=look.FAINT, fontsize=10, ha="right", va="center")


def _row(figure: Figure, title: str, box: Box) -> None:
    wide, height = figure.get_size_inches()
    left, bottom, _, tall = box
    figure.text(left / wide, (bottom + tall / 2) / height, f"⌄  {title}", color=look.TEXT, fontsize=11, va="center")


def _panel(figure: Figure, panel: Mapping[str, Any], box: Box) -> Axes:
    """The panel's frame and title; gives the axes inside."""
    wide, height = figure.get_size_inches()
    left, bottom, width, tall = box
    frame = figure.add_axes((left / wide, bottom / height, width / wide, tall / height))
    frame.set_facecolor(look.PANEL)
    frame.set_xticks([])
    frame.set_yticks([])
    for side in frame.spines.values():
        side.set_color(look.EDGE)
    title_y = (bottom + tall - TITLE_IN / 2 - 0.03) / height
    size = min(10.0, 150 * width / max(len(panel["title"]), 1))
    figure.text((left + 0.1) / wide, title_y, panel["title"], color=look.TEXT, fontsize=size, va="center")
    axes_left, below = (0.12, 0.12) if panel["type"] in _BARE else (0.72, 0.24 if panel["type"] == "heatmap" else 0.62)
    inner = (left + axes_left, bottom + below, width - axes_left - 0.14, tall - below - TITLE_IN - 0.08)
    return figure.add_axes((inner[0] / wide, inner[1] / height, inner[2] / wide, inner[3] / height))
