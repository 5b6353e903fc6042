"""Does the shadow price hold the mean? `python tests/benchmarks/budget/price.py`: simulated traffic, no model, a few seconds.

Four mixes one after another, 500 requests each, from a cold start, by several seeds and with requests in flight. Writes
results/eval-budget-price.json and a picture beside it; exit code 1 means a bar is broken.
"""

import argparse
import sys
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.benchmarks.budget.traffic import EASY, HARD, SAME, USUAL, Mix, Served, Site, mean_tokens
from tests.benchmarks.evidence import CHECKOUT, Bar, Evidence, versions_of

PHASES: dict[str, Mix] = {"usual": USUAL, "hard": HARD, "one kind only": SAME, "usual again": USUAL}
LENGTH = 500
IN_FLIGHT = (1, 8, 32)
WINDOW = 100


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--target", type=float, default=800)
    parser.add_argument("--out", type=Path, default=CHECKOUT / "results" / "eval-budget-price.json")
    options = parser.parse_args()
    evidence = Evidence(
        "eval-budget-price",
        seeds={"traffic": f"0 to {options.seeds - 1}"},
        versions=versions_of("predawn"),
        settings={"target_tokens": options.target, "requests per mix": LENGTH, "share judged": 0.3},
    )
    shown: list[Served] = []
    for in_flight in IN_FLIGHT:
        runs = [serve(options.target, seed, in_flight) for seed in range(options.seeds)]
        shown = shown or runs[0]
        for at, name in enumerate(PHASES):
            phases = [run[at * LENGTH : (at + 1) * LENGTH] for run in runs]
            errors = sorted(abs(mean_tokens(phase) / options.target - 1) for phase in phases)
            figures = {"mean": mean(errors), "p95": errors[int(0.95 * (len(errors) - 1))], "worst": errors[-1]}
            right = mean(mean(float(one.was_right) for one in phase) for phase in phases)
            evidence.figures[f"{name}, {in_flight} in flight"] = {"error": figures, "share right": right}
            what = "from a cold start" if at == 0 else "after a flip"
            evidence.bars[f"mean off target, {what}: {name}, {in_flight} in flight"] = Bar(
                figures["p95"], 0.05, "of the target, 95 % of seeds"
            )
    evidence.notes.append("Easy traffic alone would spend less than the target: see `unspent`.")
    unspent = Site(options.target, seed=0)
    evidence.figures["unspent"] = {"mean tokens on easy traffic": mean_tokens(unspent.serve(EASY, LENGTH))}
    evidence.save(options.out)
    draw(evidence, shown, options.target, options.out.with_suffix(".png"))
    print(evidence.summary())
    return 0 if evidence.all_hold else 1


def serve(target: float, seed: int, in_flight: int) -> list[Served]:
    site = Site(target, seed=seed, in_flight=in_flight)
    return [served for mix in PHASES.values() for served in site.serve(mix, LENGTH)]


def draw(evidence: Evidence, served: list[Served], target: float, path: Path) -> None:
    """Mean since the last flip and moving mean, against the target; the price below."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (upper, lower) = pyplot.subplots(
        2, 1, figsize=(11, 6), sharex=True, height_ratios=(3, 1), layout="constrained"
    )
    upper.axhspan(target * 0.95, target * 1.05, color="#fde68a", alpha=0.6, label="target ± 5 %")
    since: list[float] = []
    moving: list[float] = []
    for at in range(len(served)):
        since.append(mean_tokens(served[at - at % LENGTH : at + 1]))
        moving.append(mean_tokens(served[max(0, at - WINDOW + 1) : at + 1]))
    upper.plot(moving, color="#94a3b8", linewidth=1, label=f"mean of the last {WINDOW}")
    upper.plot(since, color="#c2410c", label="mean since the mix changed")
    upper.set_ylabel("tokens a request")
    upper.set_ylim(0, 2.5 * target)
    upper.legend(loc="lower right", fontsize=9)
    lower.plot([one.price * 1000 for one in served], color="#475569", linewidth=0.8)
    lower.set_yscale("log")
    lower.set_ylabel("price per\n1000 tokens")
    lower.set_xlabel("requests")
    for axis in (upper, lower):
        axis.spines[["top", "right"]].set_visible(False)
        for at, name in enumerate(PHASES):
            axis.axvline(at * LENGTH, color="#1e293b", linestyle="--", linewidth=0.8)
            if axis is upper:
                axis.text(at * LENGTH + 8, 2.35 * target, name, fontsize=9, color="#1e293b")
    held = [bar.holds for bar in evidence.bars.values()]
    figure.suptitle(
        f"A shadow price keeps mean spend while the traffic changes; {held.count(True)} of {len(held)} bars hold\n"
        f"{evidence.begun:%Y-%m-%d} · simulated traffic, seed 0, one request at a time",
        fontsize=11,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
