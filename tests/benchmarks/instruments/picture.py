"""One figure of what instruments cost."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.evidence import Evidence

OURS, PLAIN, LIMIT = "#c2410c", "#94a3b8", "#1e293b"
SHADES = ("#7c2d12", "#c2410c", "#ea580c", "#0c4a6e", "#0369a1", "#38bdf8")


def draw(evidence: Evidence, path: Path) -> None:
    """Writes the figure."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.4), layout="constrained")
    _request(left, evidence.figures["request_us"])
    _scrape(right, evidence.figures["scrape"]["ways"])
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    machine = evidence.machine
    figure.suptitle(
        f"Instruments · {evidence.begun:%Y-%m-%d} · {machine.cpu}, {machine.cores} cores · dashed: what is promised",
        fontsize=11,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _request(axis: Any, pieces: Mapping[str, float]) -> None:
    so_far = 0.0
    for (name, cost), shade in zip(pieces.items(), SHADES, strict=True):
        axis.bar("all together", cost, bottom=so_far, color=shade, label=f"{name}: {cost:.1f}")
        so_far += cost
    axis.axhline(30, color=LIMIT, linestyle="--", linewidth=1)
    axis.set_xlim(-0.6, 2.2)
    axis.set_ylabel("µs of CPU per request")
    axis.set_title("What a request pays, traces of all requests included", fontsize=10)
    handles, labels = axis.get_legend_handles_labels()
    axis.legend(handles[::-1], labels[::-1], fontsize=8, frameon=False, loc="center right")


def _scrape(axis: Any, ways: Mapping[str, Mapping[str, float]]) -> None:
    names = list(ways)
    worst = [ways[name]["worst_block_ms"] for name in names]
    axis.bar(names, worst, color=[OURS, PLAIN, PLAIN], width=0.5)
    for place, name in enumerate(names):
        axis.text(
            place,
            max(worst[place], 5.2),
            f"{worst[place]:.2f} ms\n(page: {ways[name]['cpu_ms']:.1f} ms of CPU)",
            ha="center",
            va="bottom",
            fontsize=8,
        )
    axis.axhline(5, color=LIMIT, linestyle="--", linewidth=1)
    axis.set_ylim(0, max(*worst, 5) * 1.25)
    axis.text(len(names) - 0.5, 5, "5 ms", ha="right", va="bottom", fontsize=8, color=LIMIT)
    axis.set_ylabel("ms without a turn of the event loop, worst")
    axis.set_title("A scrape of 300 histograms, rendered in a thread", fontsize=10)
