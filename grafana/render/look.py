"""Colours and sizes of Grafana's dark theme."""

from __future__ import annotations

from typing import Final

PAGE: Final = "#111217"
PANEL: Final = "#181b1f"
EDGE: Final = "#2a2d33"
GRID: Final = "#2c3037"
TEXT: Final = "#ccccdc"
FAINT: Final = "#8e8e9c"
LINES: Final = (
    "#73bf69", "#f2cc0c", "#5794f2", "#ff780a", "#f2495c", "#b877d9", "#37872d", "#8ab8ff", "#fa6400", "#c4162a",
    "#a352cc", "#96d98d", "#fade2a", "#c0d8ff", "#ffb357", "#ff7383",
)  # fmt: skip
NAMED: Final = {
    "green": "#73bf69", "yellow": "#f2cc0c", "red": "#f2495c", "blue": "#5794f2", "orange": "#ff9830",
    "gray": "#6e7079",
}  # fmt: skip
COLUMN_IN: Final = 0.80
"""Width of one of the 24 columns, in inches."""
ROW_IN: Final = 0.42
"""Height of one unit of the grid."""
GAP_IN: Final = 0.09
"""Between panels."""


def line(position: int) -> str:
    """The colour of the n-th line of a panel."""
    return LINES[position % len(LINES)]


def named(color: str) -> str:
    """A colour by Grafana's name for it, or by its code."""
    return NAMED.get(color, color)
