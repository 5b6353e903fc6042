"""One figure of a soak: memory and open connections over time."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tests.benchmarks.evidence import Evidence

TOLERANCE = 0.05


def draw(
    evidence: Evidence, seconds: Sequence[float], memory_mb: Sequence[float], connections: Sequence[int], path: Path
) -> None:
    """Writes the figure beside the JSON file; the band is what the bar allows around the memory right after warm-up."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    warm_s = evidence.settings["warm_up_s"]
    warm = [mb for second, mb in zip(seconds, memory_mb, strict=True) if second >= warm_s] or list(memory_mb)
    base = median(warm[: max(1, len(warm) // 4)])
    minutes = [second / 60 for second in seconds]
    figure, (upper, lower) = pyplot.subplots(
        2, 1, figsize=(11, 6), sharex=True, height_ratios=(3, 1), layout="constrained"
    )
    upper.axhspan(
        base * (1 - TOLERANCE), base * (1 + TOLERANCE), xmin=0, color="#fde68a", alpha=0.5, label="± 5 % after warm-up"
    )
    upper.axvline(warm_s / 60, color="#1e293b", linestyle="--", linewidth=1, label="end of warm-up")
    upper.plot(minutes, memory_mb, color="#c2410c", label="memory (PSS)")
    upper.set_ylabel("MB")
    upper.set_ylim(0, max(memory_mb) * 1.25)
    upper.legend(loc="lower right", fontsize=9)
    lower.plot(minutes, connections, color="#475569")
    lower.set_ylabel("connections")
    lower.set_xlabel("minutes")
    for axis in (upper, lower):
        axis.spines[["top", "right"]].set_visible(False)
    held = [bar.holds for bar in evidence.bars.values()]
    figure.suptitle(
        f"Predawn under {evidence.settings['rate_per_s']:.0f} requests/s, 1 % of clients hanging up, 1 % upstream faults; "
        f"{held.count(True)} of {len(held)} bars hold\n{evidence.begun:%Y-%m-%d} · {evidence.machine.cpu}, {evidence.machine.cores} cores",
        fontsize=11,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
