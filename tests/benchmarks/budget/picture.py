"""One figure: accuracy against tokens for everything that was compared, and what the parts of a run came to."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.benchmarks.evidence import Evidence

FIXED, STOPPING, CHECKED, ADAPTIVE, LIMIT = "#94a3b8", "#1d4ed8", "#15803d", "#c2410c", "#1e293b"
KINDS = (
    ("plain", FIXED, "o", "the same for every request"),
    ("stopping", STOPPING, "s", "strategies that look at the answers"),
    ("checked", CHECKED, "^", "best_of, equations checked"),
)
STEPS = 40
SHADES = ("#e2e8f0", "#94a3b8", "#c2410c")


def draw(evidence: Evidence, found: Mapping[str, Any], path: Path) -> None:
    """Writes the figure; `found` holds the figures of the parts that were run, by name."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [(panel, found) for name, panel in PANELS if name in found]
    if not panels:
        return
    widths = [3 if panel is _accuracy else 2 for panel, _ in panels]
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(2.6 * sum(widths), 5.4), width_ratios=widths, layout="constrained", squeeze=False
    )
    for axis, (panel, part) in zip(axes.flat, panels, strict=True):
        panel(axis, part)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3)
    machine = evidence.machine
    held = [bar.holds for bar in evidence.bars.values()]
    figure.suptitle(
        f"Spending by difficulty · {evidence.begun:%Y-%m-%d} · {machine.cpu}, {machine.cores} cores · "
        f"{held.count(True)} of {len(held)} bars hold",
        fontsize=11,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _accuracy(axis: Any, found: Mapping[str, Any]) -> None:
    samples = found["samples"]
    ways = samples["ways"]
    line = [(ways[name]["tokens"], 100 * ways[name]["right"]) for name in samples["hull"]]
    axis.plot(*_mixtures(line), ":", color=LIMIT, linewidth=1, label="best mixtures of fixed settings")
    for kind, colour, mark, label in KINDS:
        for number, name in enumerate(samples[kind]):
            way = ways[name]
            place = (way["tokens"], 100 * way["right"])
            shown = label if number == 0 else None
            axis.errorbar(*place, yerr=100 * way["standard_error"], fmt=mark, color=colour, label=shown)
            if kind == "plain":  # the others stand too close together to be named
                axis.annotate(f" {name}", place, fontsize=7, va="top", color=colour)
    runs = found.get("adaptive", {}).get("runs", {})
    for name, way in runs.items():
        axis.errorbar(way["tokens"], 100 * way["right"], yerr=100 * way["standard_error"], fmt="D", color=ADAPTIVE)
        axis.annotate(f"adaptive, {name} ", (way["tokens"], 100 * way["right"]), fontsize=9, ha="right", va="bottom")
    axis.set(xscale="log", xlabel="tokens a request, probes, thrown away answers and their prompts included")
    axis.set(title="What tokens buy", ylabel="right, %")
    axis.legend(loc="lower right", fontsize=8)


def _mixtures(corners: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """The straight lines between settings, in steps: on a logarithmic axis they are bent."""
    tokens, right = [corners[0][0]], [corners[0][1]]
    for (left, low), (end, high) in pairwise(corners):
        for step in range(1, STEPS + 1):
            tokens.append(left + (end - left) * step / STEPS)
            right.append(low + (high - low) * step / STEPS)
    return tokens, right


def _tiers(axis: Any, found: Mapping[str, Any]) -> None:
    """Who was given what, in the leanest run."""
    name, run = next(iter(found["adaptive"]["runs"].items()))
    shares = run["tiers_by_depth"]
    depths = list(shares)
    floor = [0.0] * len(depths)
    for tier, shade in zip(next(iter(shares.values())), SHADES, strict=False):
        heights = [shares[depth].get(tier, 0.0) for depth in depths]
        axis.bar(depths, heights, bottom=floor, color=shade, label=tier)
        floor = [one + other for one, other in zip(floor, heights, strict=True)]
    axis.set(title=f"Who got what: {name}", xlabel="dependent steps to the answer", ylabel="share of requests")
    axis.legend(fontsize=8, loc="lower left")


def _latency(axis: Any, found: Mapping[str, Any]) -> None:
    latency = found["latency"]
    names = list(latency)[::-1]
    axis.barh(names, [latency[name]["median_s"] for name in names], color=FIXED)
    axis.axvline(1.3 * latency["one answer"]["median_s"], color=LIMIT, linestyle="--")
    axis.set(title="Time to the answer, with room upstream", xlabel="s, median")


PANELS = (("samples", _accuracy), ("adaptive", _tiers), ("latency", _latency))
