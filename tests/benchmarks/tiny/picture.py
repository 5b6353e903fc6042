"""One figure: what share is right by depth, for each way of spending compute, and what it costs when asked."""

from collections.abc import Mapping
from pathlib import Path

from tests.benchmarks.evidence import Evidence

from predawn.kernels.tiny.evaluate import Scores

COLOURS = {
    "direct": "#94a3b8",
    "single sample": "#fdba74",
    "stepwise": "#c2410c",
    "vote of 16": "#7c2d12",
    "direct, own notes": "#60a5fa",
    "direct, right notes": "#1d4ed8",
}


def draw(evidence: Evidence, scores: Mapping[str, Scores], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 5), width_ratios=(3, 2), layout="constrained")
    depths = sorted(scores["direct"].right)
    for name, colour in COLOURS.items():
        left.plot(depths, [scores[name].share([depth]) for depth in depths], "o-", color=colour, label=name)
    left.set(xlabel="dependent steps to the answer", ylabel="share right", ylim=(0, 1.03))
    left.legend(loc="lower left", fontsize=9)
    for name, colour in COLOURS.items():
        right.scatter(scores[name].mean_tokens(), scores[name].share(), color=colour, s=80)
        right.annotate(f" {name}", (scores[name].mean_tokens(), scores[name].share()), fontsize=9, va="center")
    right.set(xscale="log", xlabel="tokens written while somebody waits", ylim=(0, 1.03))
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3)
    count = evidence.settings["stories"]
    figure.suptitle(f"predawn-tiny on {count} stories it has not seen")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
