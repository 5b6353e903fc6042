"""One figure of what drawing several answers costs."""

from pathlib import Path

from tests.benchmarks.evidence import Evidence

OURS, LIMIT = "#c2410c", "#1e293b"


def draw(evidence: Evidence, path: Path) -> None:
    """Each bar beside its promise."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(evidence.bars), figsize=(10, 3.6), layout="constrained")
    for axis, (name, bar) in zip(axes, evidence.bars.items(), strict=True):
        assert bar.value is not None
        axis.bar(0, bar.value, color=OURS, width=0.5)
        axis.text(0, bar.value, f"{bar.value:.3g} {bar.unit}", ha="center", va="bottom")
        axis.axhline(bar.bar, color=LIMIT, linestyle="--", linewidth=1)
        axis.set(xlim=(-0.8, 0.8), xticks=[], ylabel=bar.unit)
        axis.set_title(name.replace(" beside", "\nbeside"), fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    machine = evidence.machine
    figure.suptitle(
        f"Sampling · {evidence.begun:%Y-%m-%d} · {machine.cpu}, {machine.cores} cores · dashed: what is promised",
        fontsize=11,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
