"""What sleep is worth: `python tests/benchmarks/sleep/run.py [PART …] [--limit N]`, or `make eval-sleep` for all parts.

- stories: the bundled model on stories it has not seen, with and without sleep
- crash: kill -9 at random moments while a server sleeps
- preemption: the first token of somebody who comes while it sleeps
- matching: what finding a context costs each request
- problems: any OpenAI endpoint (--base-url, --model) on GSM8K's socratic problems; a part of its own

Writes results/eval-sleep.json and a picture beside it (with some parts only: eval-sleep-PART.json); exit code 1 means a bar
is broken. What an interrupted run found out is kept in .cache and not asked again; --fresh forgets it.
"""

import argparse
import asyncio
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.benchmarks.evidence import CHECKOUT, Bar, Evidence, versions_of
from tests.benchmarks.processes import raise_file_limit
from tests.benchmarks.sleep import bundled, crash, endpoint, preemption
from tests.benchmarks.sleep.picture import draw

PARTS = ("stories", "crash", "preemption", "matching")
KEPT = CHECKOUT / ".cache" / "bench" / "sleep"
BUNDLED = CHECKOUT / "kernels" / "tiny" / "weights"


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"of {', '.join((*PARTS, 'problems'))} (default: all but the last)"
    )
    parser.add_argument("--limit", type=int, help="stories (400), problems (50), contexts that are killed (50)")
    parser.add_argument("--weights", type=Path, help="another checkpoint in place of the bundled model")
    parser.add_argument("--threads", type=int, default=1, help="of the local engine")
    parser.add_argument("--base-url", help="an OpenAI endpoint, /v1 included; its key is $OPENAI_API_KEY")
    parser.add_argument("--model", help="the model's name there")
    parser.add_argument(
        "--reasoning", default="none", help="the model's knob for effort, as `models[].reasoning` has it"
    )
    parser.add_argument("--fresh", action="store_true", help="ask again what an interrupted run has asked")
    parser.add_argument("--out", type=Path, help="evidence file, relative to the checkout")
    options = parser.parse_args(words)
    if options.base_url and not options.parts:
        options.parts = ["problems"]
    options.parts = options.parts or list(PARTS)
    if unknown := set(options.parts) - {*PARTS, "problems"}:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join((*PARTS, 'problems'))}")
    if "problems" in options.parts and not (options.base_url and options.model):
        parser.error("problems need --base-url and --model")
    if options.limit is not None and options.limit < 2:
        parser.error("--limit is 2 at least")
    if options.weights is None and {"stories", "preemption"} & set(options.parts) and not BUNDLED.exists():
        parser.error("the bundled model is not there: `make train-tiny`, or name a checkpoint with --weights")
    return options


def main() -> int:
    options = parse()
    raise_file_limit()
    evidence = Evidence(
        "eval-sleep", seeds={}, versions=versions_of("predawn", "dbos", "sqlalchemy", "torch", "aiohttp")
    )
    if options.weights is not None:
        evidence.notes.append("Another checkpoint than the bundled model's was measured.")
    found: dict[str, Any] = {}
    folders = []
    for part in options.parts:
        print(f"{part} …", flush=True)
        try:
            found[part], folder = _measured(part, options, evidence)
        except KeyboardInterrupt:
            print("\ninterrupted; the same command goes on from here", file=sys.stderr)
            return 130
        folders.append(folder)
    evidence.figures = found
    out = _out(options)
    evidence.save(out)
    draw(evidence, found, out.with_suffix(".png"))
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    print(evidence.summary())
    print(f"evidence in {out.name} and {out.with_suffix('.png').name}")
    return 0 if evidence.all_hold else 1


def _out(options: argparse.Namespace) -> Path:
    is_whole = set(options.parts) == set(PARTS)
    name = "eval-sleep.json" if is_whole else f"eval-sleep-{'-'.join(options.parts)}.json"
    out: Path = options.out or Path("results") / name
    return out if out.is_absolute() else CHECKOUT / out


def _measured(part: str, options: argparse.Namespace, evidence: Evidence) -> tuple[dict[str, Any], Path]:
    """One part's figures, with its settings and bars in the evidence, and the folder that may be removed afterwards."""
    if part == "matching":
        return _matching(options.limit, evidence), KEPT / part
    measure, bars, plan = _plan(part, options)
    evidence.settings[part] = {
        name: str(value) if isinstance(value, Path) else value
        for name in plan.__dataclass_fields__
        if (value := getattr(plan, name)) is not None and name != "weights"
    }
    folder = KEPT / f"{part}-{_digest(part, plan, options)}"
    if options.fresh or part in ("crash", "preemption"):  # these are not made of answers that could be kept
        shutil.rmtree(folder, ignore_errors=True)
    elif folder.exists():
        print(f"  going on with what is in {folder.relative_to(CHECKOUT)}", flush=True)
    found = asyncio.run(measure(plan, folder))
    evidence.bars |= bars(found)
    return found, folder


def _plan(part: str, options: argparse.Namespace) -> tuple[Any, Any, Any]:
    """What measures a part, what it promises, and how much it is to do."""
    limit, weights = options.limit, options.weights.resolve() if options.weights else None
    if part == "stories":
        return bundled.measure, bundled.bars, bundled.Plan(limit or 400, weights=weights, threads=options.threads)
    if part == "crash":
        return crash.measure, crash.bars, crash.Plan(contexts=min(limit or 50, 50), kills=min(limit or 20, 20))
    if part == "preemption":
        rounds = min(12, max(2, (limit or 400) // 10))
        return preemption.measure, preemption.bars, preemption.Plan(rounds, weights=weights, threads=options.threads)
    plan = endpoint.Plan(options.base_url, options.model, limit or 50, reasoning=options.reasoning)
    return endpoint.measure, endpoint.bars, plan


def _digest(part: str, plan: Any, options: argparse.Namespace) -> str:
    """The same for a run that can go on where another stopped: the same questions to the same model."""
    weights = (options.weights or BUNDLED) / "model.safetensors"
    model = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.exists() and part == "stories" else ""
    return hashlib.sha256(json.dumps([part, repr(plan), model]).encode()).hexdigest()[:12]


def _matching(limit: int | None, evidence: Evidence) -> dict[str, Any]:
    """In a process of its own, which is what its figures of memory and time are about."""
    out = KEPT / "matching.json"
    command = [sys.executable, str(Path(__file__).with_name("matching.py")), "--out", str(out)]
    if limit is not None:
        command += ["--stored", str(max(2000, min(100_000, 250 * limit)))]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(f"matching.py failed: {done.stderr.strip()[-300:]}")
    saved = json.loads(out.read_text())
    for name, bar in saved["bars"].items():
        evidence.bars[f"matching: {name}"] = Bar(bar["value"], bar["bar"], bar.get("unit", ""))
    evidence.settings["matching"] = saved["settings"]
    found: dict[str, Any] = saved["figures"]
    return found


if __name__ == "__main__":
    sys.exit(main())
