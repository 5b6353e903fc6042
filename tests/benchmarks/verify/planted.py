"""What verifiers catch and let pass: `python -m tests.benchmarks.verify.planted [--seed N] [--count N] [--only NAME …]`.

For each built-in verifier, violations and clean look-alikes are drawn from a seed and read as the server reads answers,
cut into chunks anywhere. Writes `results/verify-planted.json`; the exit code says whether every bar holds.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.benchmarks.evidence import CHECKOUT, Bar, Evidence, versions_of
from tests.benchmarks.verify.plants import PLANTS
from tests.benchmarks.verify.plants.case import Case
from tests.benchmarks.verify.reading import verdicts_of

from predawn.plugins.verify.verifiers import create

CAUGHT = 0.99
PASSED = 0.99


@dataclass(slots=True)
class Score:
    """How one verifier did."""

    caught: int = 0
    wrong: int = 0
    passed: int = 0
    clean: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)


async def measured(name: str, seed: int, count: int) -> Score:
    """Read `count` wrong and `count` clean answers."""
    random = Random(zlib.crc32(f"{seed} {name}".encode()))
    score = Score()
    for number in range(2 * count):
        is_wrong = number % 2 == 0
        case = PLANTS[name](random, is_wrong)
        verdicts = await verdicts_of(create(name, case.options), case, random)
        is_told = any(verdict.outcome == "violation" for verdict in verdicts)
        score.kinds[case.kind] += 1
        score.wrong += is_wrong
        score.clean += not is_wrong
        score.caught += is_wrong and is_told
        score.passed += not is_wrong and not is_told
        if is_wrong != is_told:
            score.failures.append(_failure(case, is_wrong, verdicts))
    return score


def _failure(case: Case, is_wrong: bool, verdicts: list[Any]) -> dict[str, Any]:
    told = next((verdict.feedback for verdict in verdicts if verdict.outcome == "violation"), "")
    return {
        "is": "missed" if is_wrong else "false alarm",
        "kind": case.kind,
        "text": case.text[:300],
        "told": told[:200],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="What is drawn.")
    parser.add_argument("--count", type=int, default=200, help="Violations, and as many look-alikes, per verifier.")
    parser.add_argument("--only", nargs="*", choices=sorted(PLANTS), default=sorted(PLANTS), help="Verifiers.")
    parser.add_argument("--output", type=Path, default=CHECKOUT / "results" / "verify-planted.json")
    options = parser.parse_args()
    evidence = Evidence(
        "verify-planted", {"plants": options.seed}, versions_of("predawn", "regex", "jsonschema", "z3-solver")
    )
    evidence.settings = {"count": options.count}
    for name in options.only:
        score = asyncio.run(measured(name, options.seed, options.count))
        evidence.bars[f"{name}: violations caught"] = Bar(score.caught / score.wrong, CAUGHT, at_least=True)
        evidence.bars[f"{name}: look-alikes passed"] = Bar(score.passed / score.clean, PASSED, at_least=True)
        evidence.figures[name] = {
            "caught": score.caught, "wrong": score.wrong, "passed": score.passed, "clean": score.clean,
            "kinds": dict(sorted(score.kinds.items())), "failures": score.failures[:20],
        }  # fmt: skip
    evidence.notes.append("The judge is scripted: what is tested there is how it is asked and how its words are read.")
    evidence.save(options.output)
    sys.stdout.write(evidence.summary() + f"\n{options.output}\n")
    return 0 if evidence.all_hold else 1


if __name__ == "__main__":
    sys.exit(main())
