"""How each kind of panel is drawn into its axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from grafana.render import look
from grafana.render.words import written

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from grafana.asking import Span
    from grafana.render.answers import Line

Panel = Mapping[str, Any]
MOST_ROWS: Final = 10
"""Of a table or of bars; Grafana would scroll."""
LEGEND_LINES: Final = 2


def _defaults(panel: Panel) -> Mapping[str, Any]:
    defaults: Mapping[str, Any] = panel["fieldConfig"]["defaults"]
    return defaults


def _step_color(panel: Panel, value: float | None) -> str:
    """By the thresholds, where the panel has more than the lowest; else the fixed colour."""
    defaults = _defaults(panel)
    steps = defaults["thresholds"]["steps"]
    if defaults["color"]["mode"] == "fixed":
        return look.named(defaults["color"]["fixedColor"])
    color = steps[0]["color"]
    for step in steps[1:]:
        if value is not None and value >= step["value"]:
            color = step["color"]
    return look.named(color)


def stat(axes: Axes, panel: Panel, lines: Sequence[Line], span: Span) -> None:
    """One number; where it was before is behind it."""
    defaults = _defaults(panel)
    last = lines[0].series.last if lines else None
    color = _step_color(panel, last)
    axes.axis("off")
    if lines and panel["options"]["graphMode"] == "area":
        points = lines[0].series.finite
        if len(points) > 1:
            times, values = zip(*points, strict=True)
            behind = axes.inset_axes((0, 0, 1, 0.36))
            behind.axis("off")
            behind.fill_between(times, values, color=color, alpha=0.18, linewidth=0)
            behind.plot(times, values, color=color, alpha=0.7, linewidth=0.9)
            behind.set_xlim(span.start, span.end)
            behind.set_ylim(0, max(values) * 1.05 or 1)
    text = written(last, defaults["unit"], defaults.get("decimals"))
    axes.text(
        0.5, 0.62, text, color=color, fontsize=24, fontweight="bold", ha="center", va="center", transform=axes.transAxes
    )


def timeseries(axes: Axes, panel: Panel, lines: Sequence[Line], span: Span) -> None:
    """Lines, or areas on top of each other."""
    _frame(axes, panel, span)
    custom = _defaults(panel)["custom"]
    times = np.arange(span.start, span.end + span.step / 2, span.step)
    base = np.zeros(len(times))
    for position, line in enumerate(lines):
        color = look.line(position)
        values = _on_grid(line, times)
        if custom["stacking"]["mode"] == "normal":
            top = base + np.nan_to_num(values)
            axes.fill_between(times, base, top, color=color, alpha=custom["fillOpacity"] / 100, linewidth=0)
            axes.plot(times, top, color=color, linewidth=1.0)
            base = top
        else:
            alone = ~np.isnan(values) & np.isnan(np.roll(values, 1)) & np.isnan(np.roll(values, -1))
            axes.plot(times, values, color=color, linewidth=1.2)
            axes.plot(times[alone], values[alone], "o", color=color, markersize=2.5)
            axes.fill_between(times, 0, values, color=color, alpha=custom["fillOpacity"] / 100, linewidth=0)
    _limits(axes, panel)
    if custom["thresholdsStyle"]["mode"] != "off":
        for step in _defaults(panel)["thresholds"]["steps"][1:]:
            axes.axhline(step["value"], color=look.named(step["color"]), linewidth=0.9, linestyle=(0, (5, 4)))
    _legend(axes, [(line.name, look.line(position)) for position, line in enumerate(lines)])


def heatmap(axes: Axes, panel: Panel, lines: Sequence[Line], span: Span) -> None:
    """A column for each moment, a row for each bucket, darker where more fell into it."""
    _frame(axes, panel, span)
    axes.grid(visible=False)
    times = np.arange(span.start, span.end + span.step / 2, span.step)
    ordered = sorted(lines, key=lambda line: float(line.series.labels.get("le", "inf")))
    if not ordered:
        return
    whole = np.nan_to_num(np.array([_on_grid(line, times) for line in ordered]))
    counts = np.diff(whole, axis=0, prepend=np.zeros((1, len(times)))).clip(min=0)
    used = np.flatnonzero(counts.sum(axis=1) > 0)
    low, high = (max(used[0] - 1, 0), min(used[-1] + 2, len(counts))) if len(used) else (0, len(counts))
    shown = np.ma.masked_less_equal(counts[low:high], 1e-9)
    edges = np.append(times, times[-1] + span.step) - span.step / 2
    axes.pcolormesh(edges, np.arange(high - low + 1), np.sqrt(shown), cmap="Oranges_r", linewidth=0, rasterized=True)
    unit = panel["options"]["yAxis"]["unit"]
    bounds = [float(line.series.labels.get("le", "inf")) for line in ordered]
    names = ["+Inf" if math.isinf(bound) else written(bound, unit) for bound in bounds]
    each = max(1, (high - low) // 7)
    axes.set_yticks(np.arange(1, high - low + 1)[::each], names[low:high][::each])
    axes.set_xlim(span.start, span.end)
    axes.set_ylim(0, high - low)


def bargauge(axes: Axes, panel: Panel, lines: Sequence[Line], span: Span) -> None:
    """A bar for each line's latest value."""
    del span
    axes.axis("off")
    defaults = _defaults(panel)
    largest = max((line.series.last or 0 for line in lines), default=0) or 1
    for position, line in enumerate(lines[:MOST_ROWS]):
        value = line.series.last
        color = look.line(position)
        top = 1 - (position + 0.5) / max(len(lines[:MOST_ROWS]), 3)
        height = 0.5 / max(len(lines[:MOST_ROWS]), 3)
        axes.barh(top, 0.52, height, left=0.28, color=look.GRID)
        axes.barh(top, 0.52 * max(value or 0, 0) / largest, height, left=0.28, color=color, alpha=0.85)
        axes.text(0.26, top, line.name, color=look.TEXT, fontsize=8, ha="right", va="center")
        text = written(value, defaults["unit"], defaults.get("decimals"))
        axes.text(0.82, top, text, color=color, fontsize=10, fontweight="bold", ha="left", va="center")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)


def state_timeline(axes: Axes, panel: Panel, lines: Sequence[Line], span: Span) -> None:
    """A band for each line, coloured by the state it was in."""
    _frame(axes, panel, span)
    axes.grid(visible=False)
    mappings = _defaults(panel)["mappings"]
    told = mappings[0]["options"] if mappings else {}
    for position, line in enumerate(lines):
        for time, value in line.series.finite:
            color = look.named(told.get(str(int(value)), {"color": "gray"})["color"])
            axes.barh(position, span.step, 0.78, left=time, color=color, alpha=0.8, linewidth=0)
    axes.set_yticks(range(len(lines)), [line.name for line in lines])
    axes.set_ylim(max(len(lines), 1) - 0.5, -0.5)
    _legend(axes, [(word["text"], look.named(word["color"])) for word in told.values()])


def table(axes: Axes, panel: Panel, lines: Sequence[Line], span: Span) -> None:
    """The labels of each line, in the columns that the panel keeps."""
    del span
    axes.axis("off")
    options = panel["transformations"][0]["options"]
    columns = [name for name in options["indexByName"] if name != "Value"]
    rows = sorted({tuple(line.series.labels.get(name, "") for name in columns) for line in lines})
    width = 1 / len(columns)
    for across, name in enumerate(columns):
        axes.text(across * width, 0.96, name, color="#6e9fff", fontsize=8.5, fontweight="bold", va="center")
    for down, row in enumerate(rows[:MOST_ROWS]):
        y = 0.96 - (down + 1) * 0.092
        axes.axhline(y + 0.046, color=look.GRID, linewidth=0.7)
        for across, text in enumerate(row):
            axes.text(across * width, y, text, color=look.TEXT, fontsize=8.5, va="center")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)


DRAWN: Final[Mapping[str, Callable[[Axes, Panel, Sequence[Line], Span], None]]] = {
    "bargauge": bargauge,
    "heatmap": heatmap,
    "stat": stat,
    "state-timeline": state_timeline,
    "table": table,
    "timeseries": timeseries,
}


# -- what several kinds share


def _on_grid(line: Line, times: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A line's values at these times; not a number where it has none."""
    values = np.full(len(times), math.nan)
    if len(times) > 1:
        for time, value in line.series.points:
            at = round((time - times[0]) / (times[1] - times[0]))
            if 0 <= at < len(values):
                values[at] = value
    return values


def _frame(axes: Axes, panel: Panel, span: Span) -> None:
    from datetime import UTC, datetime

    axes.set_facecolor(look.PANEL)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(colors=look.FAINT, labelsize=7.5, length=0)
    axes.grid(color=look.GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    wide = axes.get_window_extent().width / axes.figure.dpi
    ticks = np.linspace(span.start, span.end, max(3, min(6, int(wide) + 2)))[1:-1]
    form = "%H:%M:%S" if span.end - span.start < 1800 else "%H:%M"
    axes.set_xticks(ticks, [datetime.fromtimestamp(tick, UTC).strftime(form) for tick in ticks])
    axes.set_xlim(span.start, span.end)
    defaults = _defaults(panel)
    axes.yaxis.set_major_formatter(lambda value, _: written(value, defaults["unit"]))


def _limits(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import MaxNLocator

    defaults = _defaults(panel)
    low, high = axes.get_ylim()
    low = defaults.get("min", low)
    high = defaults.get("max", high)
    axes.set_ylim(low, high if high > low else low + 1)
    axes.yaxis.set_major_locator(MaxNLocator(5))


def _legend(axes: Axes, names: Sequence[tuple[str, str]]) -> None:
    """Below the axes, in two lines at most; Grafana would scroll."""
    from matplotlib.lines import Line2D

    columns = _columns(axes, [name for name, _ in names])
    room = columns * LEGEND_LINES
    shown = list(names) if len(names) <= room else list(names[: room - 1])
    if len(names) > len(shown):
        shown.append((f"… {len(names) - len(shown)} more", look.PANEL))
    if shown:
        marks = [Line2D([], [], color=color, linewidth=3) for _, color in shown]
        axes.legend(
            marks, [name for name, _ in shown], loc="upper left", bbox_to_anchor=(0, 0), bbox_transform=_below(axes),
            ncols=columns, frameon=False, fontsize=7.2, labelcolor=look.FAINT, handlelength=1.1, columnspacing=1.1,
            handletextpad=0.5, borderpad=0.2, borderaxespad=0,
        )  # fmt: skip


def _below(axes: Axes) -> Any:
    """A fixed way below the axes' left end, whatever their height."""
    from matplotlib.transforms import ScaledTranslation

    figure: Any = axes.figure
    return axes.transAxes + ScaledTranslation(-0.5, -0.22, figure.dpi_scale_trans)


def _columns(axes: Axes, words: Sequence[str]) -> int:
    box = axes.get_window_extent()
    each = max(map(len, words), default=1) * 4.4 + 30
    return max(1, int((box.width / axes.figure.dpi * 72 + 36) / each))
