"""What spending by difficulty is worth: `python tests/benchmarks/budget/run.py [PART …] [--stories N]`, or
`make eval-budget` for all parts.

- samples: every problem's answers are drawn once, and every strategy plays them
- adaptive: budget and sampling end to end through the real proxy, learning online, at several targets (needs samples)
- latency: a vote of 16 beside one answer, on a scripted upstream
- price: does the mean stay at its target, simulated (`price.py`)

On the bundled model, or with --base-url on any OpenAI endpoint. Writes results/eval-budget.json, a picture beside it, and the
answers as `predawn simulate` reads them; exit code 1 means a bar is broken. What an interrupted run found out is kept in
.cache and not asked again; --fresh forgets it.
"""

import argparse
import asyncio
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.benchmarks.budget import adaptive, latency, played, recording, worth
from tests.benchmarks.budget.picture import draw
from tests.benchmarks.budget.problems import Problem, school, stories
from tests.benchmarks.budget.site import Upstream, serving
from tests.benchmarks.evidence import CHECKOUT, Bar, Evidence, versions_of
from tests.benchmarks.sleep.journal import Bar as ProgressBar
from tests.benchmarks.sleep.journal import Journal

PARTS = ("samples", "adaptive", "latency", "price")
KEPT = CHECKOUT / ".cache" / "bench" / "budget"
BUNDLED = CHECKOUT / "kernels" / "tiny" / "weights"
LEAST = 8
WARM_UP = 0.25
"""Further problems that come before those that count, of their number."""
TIGHT_SHARE, AMPLE_SHARE = 0.8, 1.5
"""Mean tokens that the adaptive runs may spend, of what `confidence` takes for every request: less, and more, than it
needs. The bars are those of the second; the first shows what is lost where tokens are short."""


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--stories", "--limit", type=int, default=1000, dest="limit", help="problems (1000)")
    parser.add_argument("--samples", type=int, default=64, choices=(8, 16, 32, 64), help="answers drawn to each (64)")
    parser.add_argument("--seed", default="held out, spending", help="of the stories")
    parser.add_argument("--weights", type=Path, help="another checkpoint in place of the bundled model")
    parser.add_argument("--base-url", help="an OpenAI endpoint, /v1 included; its key is $OPENAI_API_KEY")
    parser.add_argument("--model", help="the model's name there")
    parser.add_argument("--reasoning", help="the model's knob for effort, as `models[].reasoning` has it")
    parser.add_argument("--fresh", action="store_true", help="ask again what an interrupted run has asked")
    parser.add_argument("--out", type=Path, help="evidence file, relative to the checkout")
    options = parser.parse_args(words)
    options.parts = options.parts or list(PARTS)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if options.base_url and not options.model:
        parser.error("--base-url needs --model")
    if options.limit < LEAST:
        parser.error(f"at least {LEAST} problems")
    if not options.base_url and options.weights is None and not BUNDLED.exists():
        parser.error("the bundled model is not there: `make train-tiny`, or name a checkpoint with --weights")
    return options


def main() -> int:
    options = parse()
    evidence = Evidence(
        "eval-budget",
        seeds={"stories": options.seed, "sampling": 7},
        versions=versions_of("predawn", "torch", "aiohttp"),
        settings={"problems": options.limit, "samples": options.samples, "temperature": recording.TEMPERATURE},
    )
    folder = KEPT / _digest(options)
    if options.fresh:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        _measure(options, evidence, folder)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return 130
    out = _out(options)
    evidence.save(out)
    draw(evidence, evidence.figures, out.with_suffix(".png"))
    if set(options.parts) == set(PARTS):
        shutil.rmtree(folder, ignore_errors=True)
    print(_table(evidence.figures))
    print(evidence.summary())
    print(f"evidence in {out.name} and {out.with_suffix('.png').name}")
    return 0 if evidence.all_hold else 1


def _out(options: argparse.Namespace) -> Path:
    is_whole = set(options.parts) == set(PARTS)
    name = "eval-budget.json" if is_whole else f"eval-budget-{'-'.join(options.parts)}-only.json"
    out: Path = options.out or Path("results") / name
    return out if out.is_absolute() else CHECKOUT / out


def _digest(options: argparse.Namespace) -> str:
    """The same for a run that can go on where another stopped: the same problems to the same model."""
    weights = (options.weights or BUNDLED) / "model.safetensors"
    model = options.base_url or hashlib.sha256(weights.read_bytes()).hexdigest()
    asked = [model, options.model, options.reasoning, options.limit, options.samples, options.seed]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]


def _measure(options: argparse.Namespace, evidence: Evidence, folder: Path) -> None:
    if {"samples", "adaptive"} & set(options.parts):
        with Journal(folder / "answers.jsonl") as journal:
            _on_the_model(options, evidence, folder, journal)
    if "latency" in options.parts:
        found = asyncio.run(latency.measure(folder / "latency", rounds=5 if options.limit < 100 else 25))
        evidence.figures["latency"] = found
        evidence.bars |= latency.bars(found)
    if "price" in options.parts:
        evidence.figures["price"] = _price(evidence, _out(options).with_name("eval-budget-price.json"))


def _on_the_model(options: argparse.Namespace, evidence: Evidence, folder: Path, journal: Journal) -> None:
    first, counted = _problems(options)
    upstream = _upstream(options)
    if options.base_url:
        asyncio.run(_record_endpoint(upstream, folder, journal, counted, options.samples))
    else:
        recording.record(journal, counted, options.samples, (options.weights or BUNDLED).resolve())
    records = [journal[one.id] for one in counted]
    _keep(records, _out(options).with_name("eval-budget-samples.jsonl"))
    bar = ProgressBar("strategies", len(records))
    found = played.play(_stepped(records, bar), options.samples)
    evidence.figures["samples"] = _sample_figures(found, counted, options.samples)
    evidence.bars |= worth.early_bars(found, options.samples)
    evidence.notes += NOTES
    if "adaptive" in options.parts:
        plan = _plan(found, options.samples)
        asyncio.run(adaptive.run(plan, upstream, folder, journal, first, counted))
        runs, bars = _adaptive_figures(plan, found, journal, first, counted, options.samples)
        evidence.figures["adaptive"] = {"runs": runs}
        evidence.settings["adaptive"] = asdict(plan) | {"first, not counted": len(first)}
        evidence.bars |= bars


NOTES = [
    "Tokens: all output, thinking and discarded answers included, and the prompts of all calls but the first.",
    "Every request asks for temperature 0.8. Ways that are called greedy ask for 0 and are shown for comparison.",
    "A fixed budget: the same effort and number of answers for all; a lot decides between two, so that the mean is equal.",
    "`judge`, `revise` and `hedge` are left out: the bundled model cannot judge or revise, and to hedge buys time.",
    "`best_of` chooses by whether all equations of the thought are right.",
]


def _problems(options: argparse.Namespace) -> tuple[list[Problem], list[Problem]]:
    """Those that only come first, and those that count."""
    count = options.limit + round(WARM_UP * options.limit)
    if options.base_url:
        problems = school(count)
        return problems[options.limit :], problems[: options.limit]
    return stories(count - options.limit, f"{options.seed}, first"), stories(options.limit, options.seed)


def _upstream(options: argparse.Namespace) -> Upstream:
    weights = options.weights.resolve() if options.weights else None
    knob = options.reasoning or ("none" if options.base_url else "reasoning_effort")
    return Upstream(options.base_url, options.model, knob, weights)


async def _record_endpoint(
    upstream: Upstream, folder: Path, journal: Journal, problems: Sequence[Problem], samples: int
) -> None:
    """Through a server that writes effort as the model's knob has it."""
    tiers = [{"name": "direct", "below": 0.5, "effort": "none"}, {"name": "think", "effort": "medium"}]
    rules = {"policy": "tiers", "tiers": tiers, "shape": False, "probe": "off", "learning": {"enabled": False}}
    async with serving(folder / "recording", upstream.settings({"budget": rules})) as client:

        async def ask(question: str, thinking: bool, temperature: float, seed: int) -> dict[str, Any]:
            answer = await client.ask(
                question,
                {"x-predawn-budget": "think" if thinking else "direct"},
                temperature=temperature,
                seed=seed,
            )
            return {
                "tokens": answer.tokens,
                "text": answer.text,
                "seconds": answer.seconds,
                "prompt_tokens": answer.prompt_tokens,
            }

        await recording.record_endpoint(journal, problems, samples, ask)


def _keep(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """For `predawn simulate`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def _stepped(records: Sequence[Mapping[str, Any]], bar: ProgressBar) -> Any:
    for record in records:
        yield record
        bar.step()


def _sample_figures(found: Mapping[str, played.Outcomes], problems: Sequence[Problem], samples: int) -> dict[str, Any]:
    depths = [one.depth for one in problems]
    return {
        "ways": {
            name: {**one.as_json(), "right_by_depth": played.by_depth(one, depths)} for name, one in found.items()
        },
        "plain": [one.name for one in worth.plain(found, samples)],
        "stopping": list(played.stopping(samples)),
        "checked": [played.CHECKED] if played.CHECKED in found else [],
        "hull": [one.name for one in worth.hull(worth.plain(found, samples))],
    }


def _plan(found: Mapping[str, played.Outcomes], samples: int) -> adaptive.Plan:
    """Costs as measured, and targets by what they are."""
    direct, sure = found[played.DIRECT].tokens, found[played.SURE].tokens
    targets = {
        adaptive.AMPLE: round(AMPLE_SHARE * sure, 1),
        adaptive.TIGHT: round(TIGHT_SHARE * sure, 1),
    }
    return adaptive.Plan(targets, adaptive.Costs(round(direct, 1), round(sure, 1)), width=min(16, samples))


def _adaptive_figures(  # noqa: PLR0917 - all that the figures are made of
    plan: adaptive.Plan,
    found: Mapping[str, played.Outcomes],
    journal: Journal,
    first: Sequence[Problem],
    counted: Sequence[Problem],
    samples: int,
) -> tuple[dict[str, Any], dict[str, Bar]]:
    runs = {}
    for name, target in plan.targets.items():
        outcomes = adaptive.outcomes(journal, name, counted)
        runs[name] = {
            **outcomes.as_json(),
            "target_tokens": target,
            "cold_start": adaptive.outcomes(journal, name, first).as_json() if first else None,
            "right_by_depth": played.by_depth(outcomes, [one.depth for one in counted]),
            "tiers_by_depth": adaptive.details(journal, name, counted),
            "median_s": sorted(answer.seconds for _, answer in adaptive.answers(journal, name, counted))[
                len(counted) // 2
            ],
            **worth.compared(found, outcomes, samples),
        }
    return runs, worth.adaptive_bars(runs)


def _price(evidence: Evidence, out: Path) -> dict[str, Any]:
    """By its own command, which writes its own evidence too."""
    command = [sys.executable, str(Path(__file__).with_name("price.py")), "--out", str(out)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(f"price.py failed: {done.stderr.strip()[-300:]}")
    saved = json.loads(out.read_text())
    for name, bar in saved["bars"].items():
        evidence.bars[f"price: {name}"] = Bar(bar["value"], bar["bar"], bar.get("unit", ""))
    evidence.settings["price"] = saved["settings"]
    found: dict[str, Any] = saved["figures"]
    return found


def _table(figures: Mapping[str, Any]) -> str:
    ways = dict(figures.get("samples", {}).get("ways", {}))
    ways |= {f"adaptive, {name}": run for name, run in figures.get("adaptive", {}).get("runs", {}).items()}
    lines = [f"{'':28}   right      ±   tokens  of output"] if ways else []
    lines += [
        f"{name:28} {way['right']:7.1%} {way['standard_error']:6.1%} {way['tokens']:8.1f} {way['output_tokens']:10.1f}"
        for name, way in ways.items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
