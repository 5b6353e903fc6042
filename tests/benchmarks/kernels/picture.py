"""One figure of the kernel benchmark: a panel for each part that was run."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.evidence import Evidence
from tests.benchmarks.kernels.figures import Figures

COLOURS = ("#94a3b8", "#c2410c", "#0369a1", "#4d7c0f")
LIMIT = "#1e293b"
TITLES = {
    "sharing": "(a) CPU: one block several times in a row, against distinct blocks",
    "engine": "(b) CPU: the engine against transformers' generate",
    "lookup": "(c) CPU: n-gram lookup against plain decoding",
    "predictions": "(d) GPUs: gain of sharing — predicted, not measured",
    "lag": "(e) CPU: the server's event loop beside a local model's streams",
}


def draw(evidence: Evidence, parts: Mapping[str, Figures], path: Path) -> None:
    """Writes the figure beside the JSON file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    height = math.ceil(len(parts) / 2)
    figure, axes = pyplot.subplots(
        height, 2 if len(parts) > 1 else 1, figsize=(14, 5 * height), layout="constrained", squeeze=False
    )
    for axis, (name, figures) in zip(axes.flat, parts.items(), strict=False):
        {"sharing": _sharing, "predictions": _predictions, "lag": _lag}.get(name, _bars)(axis, figures)
        axis.set_title(TITLES[name], fontsize=10)
    for axis in axes.flat[len(parts) :]:
        axis.set_axis_off()
    machine = evidence.machine
    figure.suptitle(
        f"{evidence.begun:%Y-%m-%d} · {machine.cpu}, {machine.cores} cores · dashed: what is promised", fontsize=11
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _sharing(axis: Any, figures: Figures) -> None:
    sizes = [row["block_mb"] for row in figures.rows]
    for place, key in enumerate(("shared_r1", "shared_r2", "shared_r4", "cyclic_r2")):
        colour = COLOURS[place]
        axis.plot(
            sizes,
            [row[f"{key}_gain"] for row in figures.rows],
            "o-",
            ms=4,
            color=colour,
            label=key.replace("_r", " R="),
        )
        axis.fill_between(
            sizes,
            [row[f"{key}_low"] for row in figures.rows],
            [row[f"{key}_high"] for row in figures.rows],
            alpha=0.2,
            color=colour,
        )
    for bar in figures.bars.values():
        axis.plot([sizes[0], 1.0], [bar.bar, bar.bar], "--", color=LIMIT, lw=1)
    axis.set(xscale="log", xlabel="block (MB)", ylabel="times faster")
    axis.set_xticks(sizes, [f"{size:g}" for size in sizes])
    axis.legend(fontsize=8)


def _predictions(axis: Any, figures: Figures) -> None:
    shapes = list(dict.fromkeys(row["shape"] for row in figures.rows))
    gpus = list(dict.fromkeys(row["gpu"] for row in figures.rows))
    width = 0.8 / len(shapes)
    for place, shape in enumerate(shapes):
        gains = [row["gain"] for row in figures.rows if row["shape"] == shape]
        axis.bar(
            [x + place * width for x in range(len(gpus))],
            gains,
            width,
            color=COLOURS[place],
            label=shape,
            hatch="//",
            alpha=0.6,
        )
    axis.axhline(1, color=LIMIT, lw=0.8)
    axis.set_xticks([x + 0.4 - width / 2 for x in range(len(gpus))], gpus, fontsize=8)
    axis.set(ylabel="times faster than distinct blocks", ylim=(0.9, None))
    axis.legend(fontsize=8)


def _lag(axis: Any, figures: Figures) -> None:
    keys = ("median_ms", "p99_ms", "longest_ms")
    for place, row in enumerate(figures.rows):
        ends = [x + place * 0.4 for x in range(len(keys))]
        axis.bar(ends, [row[key] for key in keys], 0.38, color=COLOURS[place], label=row["case"])
        for end, key in zip(ends, keys, strict=True):
            axis.text(end, row[key], f"{row[key]:.1f}", ha="center", va="bottom", fontsize=8)
    for bar in figures.bars.values():
        axis.plot([0.8, 1.6], [bar.bar, bar.bar], "--", lw=1, color=LIMIT)
    axis.set_xticks([x + 0.2 for x in range(len(keys))], ["median", "99th percentile", "longest"])
    axis.set(yscale="log", ylabel="milliseconds for /version")
    axis.legend(fontsize=8)


def _bars(axis: Any, figures: Figures) -> None:
    """Rows with a case and a gain; every bar's promise as a dashed line."""
    for place, row in enumerate(figures.rows):
        spread = [[row["gain"] - row["gain_low"]], [row["gain_high"] - row["gain"]]]
        axis.barh(place, row["gain"], 0.6, color=COLOURS[1], xerr=spread, error_kw={"lw": 1, "capsize": 3})
        axis.text(row["gain_high"], place, f"  {row['gain']:.2f}×", va="center", fontsize=8)
    for bar in figures.bars.values():
        axis.axvline(bar.bar, ls="--", lw=1, color=LIMIT)
    axis.set_yticks(range(len(figures.rows)), [row["case"] for row in figures.rows], fontsize=8)
    axis.set(xlabel="times faster", xlim=(0, 1.15 * max(row["gain_high"] for row in figures.rows)))
    axis.invert_yaxis()
