"""One figure of what verification is worth and what it costs."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.evidence import Evidence

PLAIN, OURS, VOTED, RETRIED, LIMIT = "#94a3b8", "#c2410c", "#1d4ed8", "#15803d", "#1e293b"
COLOURS = {
    "nothing": PLAIN,
    "observe": "#475569",
    "gate + retry": RETRIED,
    "intervene": OURS,
    "vote@4": VOTED,
    "intervene + vote@4": "#7c3aed",
}
Panel = Callable[[Any, Mapping[str, Any]], None]


def draw(evidence: Evidence, path: Path) -> None:
    """Writes the figure: the panels of the parts that were run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [(panel, part) for name, part in evidence.figures.items() for panel in PANELS.get(name, ())]
    if not panels:
        return
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(6 * columns, 4.4 * rows), layout="constrained", squeeze=False
    )
    for axis, (panel, part) in zip(axes.flat, panels, strict=False):
        panel(axis, part)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    machine = evidence.machine
    held = [bar.holds for bar in evidence.bars.values()]
    verdict = f"{held.count(True)} of {len(held)} bars hold"
    figure.suptitle(
        f"Verification · {evidence.begun:%Y-%m-%d} · {machine.cpu}, {machine.cores} cores · {verdict} · dashed: what is promised",
        fontsize=11,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _accuracy(axis: Any, found: Mapping[str, Any]) -> None:
    for name, way in found["ways"].items():
        low, high = way["right_interval"]
        right = way["right"]
        error = [[max(0.0, right - low)], [max(0.0, high - right)]]
        tokens = way["output_tokens"]
        axis.errorbar(
            [tokens],
            [right],
            yerr=error,
            fmt="x" if name == "observe" else "o",
            capsize=3,
            color=COLOURS[name],
            label=name,
        )
    plain = found["ways"]["nothing"]
    axis.axhline(plain["right"] + 0.08, color=LIMIT, linestyle="--", linewidth=1)
    axis.axvline(1.5 * plain["output_tokens"], color=LIMIT, linestyle="--", linewidth=1)
    axis.set(title="Accuracy against tokens written, all calls", xlabel="tokens for a story", ylabel="share right")
    axis.legend(fontsize=8, loc="lower right")


def _depths(axis: Any, found: Mapping[str, Any]) -> None:
    for name, way in found["ways"].items():
        if name != "observe":
            shares = way["right_by_depth"]
            axis.plot([int(depth) for depth in shares], list(shares.values()), "o-", color=COLOURS[name], label=name)
    axis.set(title="By depth", xlabel="dependent steps", ylabel="share right")
    axis.legend(fontsize=8, loc="lower left")


def _costs(axis: Any, found: Mapping[str, Any]) -> None:
    """Everything as a multiple of an answer without verification."""
    ways = found["ways"]
    plain = ways["nothing"]
    members = (
        ("tokens written", "output_tokens", OURS),
        ("prompts too", "all_tokens", VOTED),
        ("time, alone", "alone_mean_s", PLAIN),
    )
    for place, (label, member, colour) in enumerate(members):
        values = [way[member] / plain[member] for way in ways.values()]
        axis.barh([number + 0.27 * (place - 1) for number in range(len(ways))], values, 0.25, color=colour, label=label)
    axis.set_yticks(range(len(ways)), list(ways))
    axis.invert_yaxis()
    axis.axvline(1.5, color=LIMIT, linestyle="--", linewidth=1)
    axis.set(title="What it takes, of that with nothing", xlabel="×")
    axis.legend(fontsize=8)


def _planted(axis: Any, found: Mapping[str, Any]) -> None:
    for place, (label, right, of, colour) in enumerate(
        (("violations caught", "caught", "wrong", OURS), ("look-alikes passed", "passed", "clean", VOTED))
    ):
        values = [100.0 * one[right] / max(one[of], 1) for one in found.values()]
        axis.barh(
            [number + 0.4 * (place - 0.5) for number in range(len(found))], values, 0.36, color=colour, label=label
        )
    axis.set_yticks(range(len(found)), list(found))
    axis.invert_yaxis()
    axis.axvline(99, color=LIMIT, linestyle="--", linewidth=1)
    axis.set(title="Planted violations and clean look-alikes", xlabel="% right", xlim=(90, 100.5))
    axis.legend(fontsize=8, loc="lower left")


def _added(axis: Any, found: Mapping[str, Any]) -> None:
    first, whole = found["added_ttft_ms"], found["total_beyond_1.01_ms"]
    places = range(len(first))
    axis.barh([place - 0.2 for place in places], list(first.values()), 0.36, color=VOTED, label="first token")
    axis.barh(
        [place + 0.2 for place in places],
        [whole[name] for name in first],
        0.36,
        color=OURS,
        label="total beyond 1.01 ×",
    )
    axis.set_yticks(list(places), list(first))
    axis.invert_yaxis()
    axis.tick_params(axis="y", labelsize=7)
    axis.set(title="Added by mode and verifier", xlabel="ms (the last step's check may be among it)", xscale="symlog")
    axis.legend(fontsize=8)


def _crowd(axis: Any, found: Mapping[str, Any]) -> None:
    """How long a chunk is under way; a step that waits for its verdict is under way as long as it takes to write it."""
    seen = found["crowd"]
    quantiles = [name for name in ("p50", "p90", "p99") if all(name in one["chunk_ms"] for one in seen.values())]
    width = 0.8 / len(seen)
    for place, (name, one) in enumerate(seen.items()):
        values = [one["chunk_ms"][quantile] for quantile in quantiles]
        middle = width * (place - (len(seen) - 1) / 2)
        axis.bar([number + middle for number in range(len(quantiles))], values, 0.9 * width, label=name)
    if "p99" in quantiles:
        axis.axhline(seen["off"]["chunk_ms"]["p99"] + 50, color=LIMIT, linestyle="--", linewidth=1)
    axis.set_xticks(range(len(quantiles)), quantiles)
    axis.set(title="Delay of chunks in a crowd", ylabel="ms", yscale="symlog")
    axis.legend(fontsize=7)


PANELS: Mapping[str, tuple[Panel, ...]] = {
    "accuracy": (_accuracy, _depths, _costs),
    "planted": (_planted,),
    "speed": (_added, _crowd),
}
