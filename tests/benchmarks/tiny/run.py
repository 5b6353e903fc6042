"""What the bundled model can do: `python tests/benchmarks/tiny/run.py [--stories 400]`, or `make eval-tiny`.

Writes results/eval-tiny.json and a picture beside it; exit code 1 means a bar is broken. `--seed` asks other stories.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import torch
from tests.benchmarks.evidence import CHECKOUT, Bar, Evidence, versions_of
from tests.benchmarks.tiny.picture import draw
from tests.benchmarks.tiny.writer import SEED, EngineWriter

from predawn.kernels.tiny import evaluate
from predawn.kernels.tiny.export import BUNDLED


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=BUNDLED)
    parser.add_argument("--stories", type=int, default=400)
    parser.add_argument("--seed", default="held out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=CHECKOUT / "results" / "eval-tiny.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    told = evaluate.stories(options.stories, options.seed)
    evidence = Evidence(
        "eval-tiny",
        seeds={"stories": options.seed, "sampling": SEED},
        versions=versions_of("predawn", "torch", "tokenizers"),
        settings={
            "stories": len(told),
            "depths": "1 to 8, evenly",
            "distractors": "0 to 3",
            "temperature of samples": evaluate.TEMPERATURE,
        },
    )
    scores = evaluate.measure(
        EngineWriter(options.model), told, options.seed, lambda what: print(f"{what} …", file=sys.stderr, flush=True)
    )
    evidence.figures = {name: score.as_json() for name, score in scores.items()}
    evidence.bars = {
        target.name: Bar(target.value, target.bar, at_least=target.at_least) for target in evaluate.targets(scores)
    }
    evidence.save(options.out)
    draw(evidence, scores, options.out.with_suffix(".png"))
    print(_table(scores))
    print(evidence.summary())
    return 0 if evidence.all_hold else 1


def _table(scores: dict[str, evaluate.Scores]) -> str:
    depths = sorted({depth for score in scores.values() for depth in score.right})
    lines = [f"{'share right by depth':22}" + "".join(f"{depth:>6}" for depth in depths) + "    all  tokens"]
    for name, score in scores.items():
        shares = "".join(f"{score.share([depth]):6.2f}" for depth in depths)
        lines.append(f"{name:22}{shares} {score.share():6.3f} {score.mean_tokens():7.1f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
