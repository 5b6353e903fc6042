"""One figure of what was measured: a panel for each curve."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.evidence import Evidence

PLAIN, NOTED, FREE, LIMIT = "#94a3b8", "#c2410c", "#1d4ed8", "#1e293b"
Panel = Callable[[Any, Mapping[str, Any]], None]


def draw(evidence: Evidence, found: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Writes the figure; `found` holds the figures of the parts that were run, by name."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [(panel, part) for name, part in found.items() for panel in PANELS.get(name, ())]
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
    figure.suptitle(
        f"Sleep · {evidence.begun:%Y-%m-%d} · {machine.cpu}, {machine.cores} cores · dashed: what is promised",
        fontsize=11,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _accuracy(axis: Any, found: Mapping[str, Any]) -> None:
    for sleeps, colour, label in ((False, PLAIN, "without sleep"), (True, NOTED, "with sleep")):
        points = [
            (way["output_tokens"], way["right"], way["right_interval"], name)
            for name, way in found["ways"].items()
            if name.startswith("notes") == sleeps
        ]
        points.sort(key=lambda point: point[0])
        axis.errorbar(
            [point[0] for point in points],
            [point[1] for point in points],
            yerr=[
                [max(0.0, right - low) for _, right, (low, _), _ in points],
                [max(0.0, high - right) for _, right, (_, high), _ in points],
            ],
            fmt="o-",
            capsize=3,
            color=colour,
            label=label,
        )
        for tokens, right, _, name in points:
            axis.annotate(f" {name}", (tokens, right), fontsize=7, va="bottom")
    axis.set(title="Accuracy against test-time tokens", xlabel="output tokens of an answer", ylabel="share right")
    axis.set(xscale="log", ylim=(0, 1.05))
    _plain_numbers(axis, [1, 2, 5, 10, 20, 50, 100, 200, 500])
    axis.legend(fontsize=8, loc="lower right")


def _plain_numbers(axis: Any, ticks: list[int]) -> None:
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    low, high = axis.get_xlim()
    axis.set_xticks([tick for tick in ticks if low <= tick <= high])
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())


def _time(axis: Any, found: Mapping[str, Any]) -> None:
    times = found["times"]
    plain, noted = 1000 * times["plain_mean_s"], 1000 * times["noted_mean_s"]
    axis.barh(["with sleep", "without"], [noted, plain], color=[NOTED, PLAIN])
    axis.axvline(plain / 3, color=LIMIT, linestyle="--")
    axis.set(title=f"Time to the complete answer: {noted / plain:.2f}×", xlabel="ms, mean")


def _passes(axis: Any, found: Mapping[str, Any]) -> None:
    passes = list(found["passes"])
    axis.plot(passes, [found["passes"][count]["right"] for count in passes], "o-", color=NOTED, label="share right")
    if "share_answered_from_notes" in found["passes"][passes[0]]:
        shares = [found["passes"][count]["share_answered_from_notes"] for count in passes]
        axis.plot(passes, shares, "s--", color=FREE, label="share answered from notes")
    for place, count in enumerate(passes):
        asleep = found["passes"][count]["asleep_output_tokens"]
        axis.annotate(f"{asleep:.0f} tokens", (place, 0.02), fontsize=7, ha="center")
    axis.set(
        title="Passes of consolidation", xlabel="passes at most; below: written asleep per context", ylim=(0, 1.05)
    )
    axis.legend(fontsize=8)


def _costs(axis: Any, found: Mapping[str, Any]) -> None:
    shown = found["costs"]["all tokens"]
    for ratio, colour in (("t=1", FREE), ("t=10", NOTED)):
        costs = shown[ratio]
        scale = 1.0 / costs["without_sleep"]
        queries = [int(count) for count in costs["with_sleep"]]
        axis.plot(queries, [scale * cost for cost in costs["with_sleep"].values()], "o-", color=colour, label=ratio)
        even = costs["break_even_queries"]
        if even is not None:
            axis.axvline(even, color=colour, linestyle=":")
            axis.annotate(f" {even:.1f}", (even, 1.02), color=colour, fontsize=8)
    axis.axhline(1.0, color=PLAIN, label="without sleep")
    axis.axvline(3, color=LIMIT, linestyle="--")
    axis.set(title="Cost of a query, of that without sleep", xlabel="queries per context (dotted: break-even)")
    axis.set(xscale="log", yscale="log")
    _plain_numbers(axis, [1, 3, 10, 30, 100])
    axis.legend(fontsize=8)


def _unforeseen(axis: Any, found: Mapping[str, Any]) -> None:
    kinds = list(found["unforeseeable"])
    ways = (("without sleep", PLAIN), ("gate on", NOTED), ("gate off", FREE))
    for place, (way, colour) in enumerate(ways):
        shares = [found["unforeseeable"][kind][way]["right"] for kind in kinds]
        axis.bar([number + 0.27 * (place - 1) for number in range(len(kinds))], shares, 0.25, color=colour, label=way)
    axis.set_xticks(range(len(kinds)), kinds)
    axis.set(title="Questions that notes do not foresee", ylabel="share right", ylim=(0, 1.05))
    axis.legend(fontsize=8)


def _kills(axis: Any, found: Mapping[str, Any]) -> None:
    counts = found["calls_per_life"]
    axis.bar(range(1, len(counts) + 1), counts, color=PLAIN, label="calls between two kills")
    again = found["steps_repeated_by_kill"]
    axis.bar(range(1, len(again) + 1), again, color=NOTED, label="steps among them that were done again")
    same = found["contexts"] - found["different_from_undisturbed"]
    axis.set(
        title=f"{found['kills']} kills: {same} of {found['contexts']} contexts as without",
        xlabel="server's life",
        ylabel="calls",
    )
    axis.legend(fontsize=8)


def _preemption(axis: Any, found: Mapping[str, Any]) -> None:
    ways = (("idle", PLAIN), ("sleeping", NOTED), ("sleeping, ending a call", FREE))
    for length, style in zip(found, ("-", ":"), strict=True):
        for name, colour in ways:
            seconds = found[length][name].get("all_s", ())
            shares = [(place + 1) / len(seconds) for place in range(len(seconds))]
            milliseconds = [1000 * value for value in seconds]
            axis.step(milliseconds, shares, style, color=colour, label=f"{length}, {name}", where="post")
    long = next(iter(found.values()))
    axis.axvline(1100 * long["idle"]["p50_s"], color=LIMIT, linestyle="--")
    axis.set(title="First token of somebody who comes while it sleeps", xlabel="ms", ylabel="share of requests")
    axis.set(xscale="log")
    _plain_numbers(axis, [5, 10, 20, 50, 100, 200])
    axis.legend(fontsize=7, loc="lower right")


def _matching(axis: Any, found: Mapping[str, Any]) -> None:
    names = [name for name in found if name.endswith("µs") and ("hit" in name or "miss" in name)]
    axis.barh([name.removesuffix(", µs") for name in names], [found[name] for name in names], color=PLAIN)
    axis.axvline(200, color=LIMIT, linestyle="--")
    axis.set(title="Matching a request to its context", xlabel="µs")
    axis.tick_params(axis="y", labelsize=7)


CURVES: tuple[Panel, ...] = (_accuracy, _time, _passes, _costs)
PANELS: Mapping[str, tuple[Panel, ...]] = {
    "stories": (*CURVES, _unforeseen),
    "problems": CURVES,
    "crash": (_kills,),
    "preemption": (_preemption,),
    "matching": (_matching,),
}
