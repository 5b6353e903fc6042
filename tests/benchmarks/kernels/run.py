"""Measures the kernels' claims on this machine: `python tests/benchmarks/kernels/run.py [--quick]`, or `make bench-kernels`.

Five parts, all in one run: sharing (a), engine (b), lookup (c), predictions (d), lag (e). Takes about eight minutes (`--quick`: two), writes
results/bench-kernels.json, a CSV for each part and a picture beside it. Exit code 1 means a bar is broken.
"""

import argparse
import csv
import importlib
import sys
import time
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.benchmarks.evidence import CHECKOUT, Evidence, rounded, versions_of
from tests.benchmarks.kernels.figures import Figures
from tests.benchmarks.kernels.picture import TITLES, draw

PARTS = {
    "sharing": "tests.benchmarks.kernels.sharing",
    "engine": "tests.benchmarks.kernels.engine_speed",
    "lookup": "tests.benchmarks.kernels.lookup_speed",
    "predictions": "tests.benchmarks.kernels.predictions",
    "lag": "tests.benchmarks.kernels.loop_lag",
}
ROUNDS, QUICK_ROUNDS = 12, 3


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds: a look, not evidence")
    parser.add_argument("--rounds", type=int, help=f"rounds per part (default {ROUNDS})")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"only these of {', '.join(PARTS)}, comma-separated")
    parser.add_argument(
        "--out", type=Path, default=Path("results/bench-kernels.json"), help="evidence file, relative to the checkout"
    )
    options = parser.parse_args(words)
    options.parts = [part for part in options.parts.split(",") if part]
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if not options.parts or (options.rounds is not None and options.rounds < 1):
        parser.error("at least one part and one round are needed")
    return options


def measure(options: argparse.Namespace, evidence: Evidence) -> dict[str, Figures]:
    """Runs the parts one after the other and fills the evidence."""
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    evidence.settings = {"rounds": rounds, "quick": options.quick, "parts": options.parts}
    found: dict[str, Figures] = {}
    for part in options.parts:
        print(TITLES[part], flush=True)
        began = time.monotonic()
        found[part] = figures = importlib.import_module(PARTS[part]).run(rounds)
        add(evidence, part, figures)
        print(f"  took {time.monotonic() - began:.0f} s", flush=True)
    return found


def add(evidence: Evidence, part: str, figures: Figures) -> None:
    """One part's figures into the evidence, under its name."""
    evidence.settings[part] = figures.settings
    evidence.seeds |= {f"{part}: {name}": seed for name, seed in figures.seeds.items()}
    evidence.figures[part] = {"rows": figures.rows, **figures.details}
    evidence.bars |= figures.bars
    evidence.notes += figures.notes


def write_tables(parts: Mapping[str, Figures], out: Path) -> list[Path]:
    """A CSV for each part beside `out`, with the part's own columns."""
    written = []
    for part, figures in parts.items():
        if not figures.rows:
            continue
        path = out.with_name(f"{out.stem}-{part}.csv")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(figures.rows[0]))
            writer.writeheader()
            writer.writerows(rounded(row) for row in figures.rows)
        written.append(path)
    return written


def main() -> int:
    options = parse()
    evidence = Evidence(
        "kernels", seeds={}, versions=versions_of("predawn", "torch", "triton", "transformers", "numpy")
    )
    parts = measure(options, evidence)
    out = options.out if options.out.is_absolute() else CHECKOUT / options.out
    evidence.save(out)
    tables = write_tables(parts, out)
    draw(evidence, parts, out.with_suffix(".png"))
    print(evidence.summary())
    for note in evidence.notes:
        print(f"  note: {note}")
    print(f"evidence in {', '.join(path.name for path in (out, *tables, out.with_suffix('.png')))}")
    return 0 if evidence.all_hold else 1


if __name__ == "__main__":
    sys.exit(main())
