"""What verification is worth and what it costs: `python tests/benchmarks/verify/run.py [--parts PART …]`, or `make eval-verify`.

- accuracy: the bundled model at temperature 0.8 on stories it has not seen: nothing, observe, gate + retry, intervene,
  vote@4, intervene + vote@4
- planted: violations and clean look-alikes for each verifier
- speed: answers with nothing wrong in them, beside the same without verification

Writes results/eval-verify.json and a picture beside it (with some parts or less of them: to .cache/bench/verify); exit code
1 means a bar is broken. What an interrupted run found out is kept in .cache and not asked again; --fresh forgets it.
"""

import argparse
import asyncio
import hashlib
import json
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.benchmarks.evidence import CHECKOUT, Bar, Evidence, versions_of
from tests.benchmarks.processes import raise_file_limit
from tests.benchmarks.proxy.bodies import Pace
from tests.benchmarks.sleep.journal import Bar as ProgressBar
from tests.benchmarks.verify import accuracy, speed
from tests.benchmarks.verify.hostile import hostile
from tests.benchmarks.verify.pairs import Pair
from tests.benchmarks.verify.picture import draw
from tests.benchmarks.verify.slow import DELAYS_MS

PARTS = ("accuracy", "planted", "speed")
KEPT = CHECKOUT / ".cache" / "bench" / "verify"
BUNDLED = CHECKOUT / "kernels" / "tiny" / "weights"
ASKED = ("plugins/verify", "plugins/sampling", "plugins/calls")
"""Answers that were made by other code than this are asked again."""
TOKENS_COUNTED = (
    "Tokens are those of all calls for a story. Calls that were ended early count as far as they were heard; prompts that were "
    "sent again for a correction count in full under all tokens."
)
PLANTED = 200
STREAMS = 500


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--stories", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1, help="other stories, and other violations")
    parser.add_argument("--limit", type=int, help="a small run: so many stories and violations, one round of speed")
    parser.add_argument("--weights", type=Path, help="another checkpoint in place of the bundled model")
    parser.add_argument("--threads", type=int, default=1, help="of the local engine")
    parser.add_argument("--base-url", help="an OpenAI endpoint, /v1 included; its key is $OPENAI_API_KEY")
    parser.add_argument("--model", help="the model's name there")
    parser.add_argument("--prefill", action="store_true", help="it goes on with a begun message of the assistant")
    parser.add_argument("--fresh", action="store_true", help="ask again what an interrupted run has asked")
    parser.add_argument("--out", type=Path, help="evidence file, relative to the checkout")
    options = parser.parse_args(words)
    if options.base_url and not options.model:
        parser.error("--base-url needs --model")
    if (options.limit is not None and options.limit < 2) or options.stories < 2:
        parser.error("two stories are the least")
    if not (options.base_url or options.weights or BUNDLED.exists()) and "accuracy" in options.parts:
        parser.error("the bundled model is not there: `make train-tiny`, or name a checkpoint with --weights")
    return options


def main() -> int:
    options = parse()
    raise_file_limit()
    signal.signal(signal.SIGTERM, _interrupted)
    evidence = Evidence(
        "eval-verify",
        seeds={"run": options.seed},
        versions=versions_of("predawn", "torch", "aiohttp", "uvloop", "jsonschema", "z3-solver"),
    )
    if options.base_url or options.weights:
        evidence.notes.append("Another model than the bundled one was measured; the bars are the bundled one's.")
    measures = {"accuracy": _accuracy, "planted": _planted, "speed": _speed}
    for part in PARTS:
        if part in options.parts:
            print(f"{part} …", flush=True)
            try:
                evidence.figures[part] = measures[part](options, evidence)
            except KeyboardInterrupt:
                print("\ninterrupted; the same command goes on from here", file=sys.stderr)
                return 130
            except (RuntimeError, ExceptionGroup) as failed:
                print(f"\n{_first(failed)}\nthe same command goes on from here", file=sys.stderr)
                return 2
    out = _out(options)
    evidence.save(out)
    draw(evidence, out.with_suffix(".png"))
    if "accuracy" in options.parts:
        print(_table(evidence.figures["accuracy"]))
        shutil.rmtree(_folder(_plan(options)), ignore_errors=True)
    print(evidence.summary())
    print(f"evidence in {out} and {out.with_suffix('.png').name}")
    return 0 if evidence.all_hold else 1


def _first(failed: Exception) -> Exception:
    """What went wrong first where several things are told at once."""
    while isinstance(failed, ExceptionGroup):
        failed = failed.exceptions[0]
    return failed


def _interrupted(number: int, frame: FrameType | None) -> None:
    """Servers must end with the run; once is enough, or they would not."""
    del frame
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _out(options: argparse.Namespace) -> Path:
    is_whole = set(options.parts) == set(PARTS) and options.limit is None
    folder = Path("results") if is_whole else KEPT
    name = "eval-verify.json" if is_whole else f"eval-verify-{'-'.join(options.parts)}.json"
    out: Path = options.out or folder / name
    return out if out.is_absolute() else CHECKOUT / out


def _plan(options: argparse.Namespace) -> accuracy.Plan:
    stories = min(options.stories, options.limit or options.stories)
    seed = f"held out, verified {options.seed}"
    weights = options.weights.resolve() if options.weights else None
    if options.base_url:
        return accuracy.Plan(stories, seed, base_url=options.base_url, model=options.model, prefill=options.prefill)
    return accuracy.Plan(stories, seed, weights, options.threads)


def _accuracy(options: argparse.Namespace, evidence: Evidence) -> dict[str, Any]:
    plan = _plan(options)
    evidence.settings["accuracy"] = {
        "stories": plan.stories,
        "depths": "1 to 8, evenly",
        "temperature": accuracy.TEMPERATURE,
        "side by side": plan.streams,
        "one at a time": plan.timed,
        "model": plan.model,
        "requests": {way.name: dict(way.control) for way in accuracy.WAYS},
        "verify": plan.settings()["plugins"][1]["verify"],
    }
    folder = _folder(plan)
    if options.fresh:
        shutil.rmtree(folder, ignore_errors=True)
    elif folder.exists():
        print(f"  going on with what is in {folder.relative_to(CHECKOUT)}", flush=True)
    found = asyncio.run(accuracy.measure(plan, folder))
    evidence.bars |= accuracy.bars(found)
    evidence.notes.append(TOKENS_COUNTED)
    return found


def _folder(plan: accuracy.Plan) -> Path:
    """The same for a run that can go on where another stopped: the same questions to the same model and code."""
    digest = hashlib.sha256(repr(plan).encode())
    if plan.base_url is None:
        digest.update(((plan.weights or BUNDLED) / "model.safetensors").read_bytes())
    for folder in ASKED:
        for path in sorted((CHECKOUT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return KEPT / f"accuracy-{digest.hexdigest()[:12]}"


def _planted(options: argparse.Namespace, evidence: Evidence) -> dict[str, Any]:
    """In a process of its own, as it is run by itself."""
    out = KEPT / "planted.json"
    count = min(PLANTED, options.limit or PLANTED)
    command = [sys.executable, "-m", "tests.benchmarks.verify.planted", "--seed", str(options.seed)]
    command += ["--count", str(count), "--output", str(out)]
    done = subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(f"planted.py failed: {done.stderr.strip()[-300:]}")
    saved = json.loads(out.read_text())
    for name, bar in saved["bars"].items():
        evidence.bars[name] = Bar(bar["value"], bar["bar"], bar.get("unit", ""), at_least=bar.get("at_least", False))
    evidence.settings["planted"] = saved["settings"]
    evidence.notes += saved["notes"]
    found: dict[str, Any] = saved["figures"]
    return found


@dataclass(frozen=True, slots=True)
class Watched(speed.Stage):
    """A stage that shows how far it has come."""

    bar: ProgressBar

    def load(  # noqa: PLR0917 - as the stage's
        self, wish: str, connections: int, seconds: float, pace: Pace, warm: float, ramp: float = 0.0
    ) -> speed.Figures:
        # not super(): it does not find its class where slots make it anew
        seen = speed.Stage.load(self, wish, connections, seconds, pace, warm, ramp)
        self.bar.step()
        return seen

    def pairs(self, asked: str, connections: int, seconds: float, random: Random) -> list[Pair]:
        seen = speed.Stage.pairs(self, asked, connections, seconds, random)
        self.bar.step()
        return seen


def _speed(options: argparse.Namespace, evidence: Evidence) -> dict[str, Any]:
    """In an evidence of its own: its figures are those of one part here."""
    own = Evidence("verify-speed", {}, {}, machine=evidence.machine)
    seconds, crowd_s = (4.0, 2.0) if options.limit else (speed.PAIRED_S, speed.CROWD_S)
    streams = min(STREAMS, 10 * (options.limit or STREAMS))
    ways = len(speed.AT_ONCE) + len(speed.HOLDING)
    bar = ProgressBar("speed", 1 + 2 + ways * len(DELAYS_MS) + 3 * (1 + ways) + len(speed.HOLDING))
    speed.cutting(own)
    hostile(own, times=1 if options.limit else 3)
    bar.step()
    with speed.on_stage() as stage:
        watched = Watched(stage.loader, stage.port, stage.admin, stage.folder, stage.server, bar)
        speed.paired(watched, own, seconds)
        speed.crowded(watched, own, streams, crowd_s)
    evidence.bars |= own.bars
    evidence.settings["speed"] = {
        "tokens": speed.PACE.chunks,
        "tokens_of_the_crowd": speed.LONG.chunks,
        "interval_ms": 20,
        "delays_ms": list(DELAYS_MS),
        "paired_s": seconds,
        "crowd_s": crowd_s,
        "streams": streams,
    }
    return own.figures


def _table(found: dict[str, Any]) -> str:
    depths = [str(depth) for depth in found["ways"]["nothing"]["right_by_depth"]]
    lines = [
        f"{'share right by depth':22}"
        + "".join(f"{depth:>6}" for depth in depths)
        + "    all  tokens   with prompts    alone    busy"
    ]
    for name, way in found["ways"].items():
        shares = "".join(f"{way['right_by_depth'][depth]:6.2f}" for depth in depths)
        times = f"{way['alone_mean_s']:7.2f}s {way['busy_mean_s']:6.2f}s"
        lines.append(
            f"{name:22}{shares} {way['right']:6.3f} {way['output_tokens']:7.1f} {way['all_tokens']:14.1f} {times}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
