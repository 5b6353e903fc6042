"""`predawn simulate`: what each strategy of sampling would have made of answers that were recorded before."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import _SubParsersAction

DEFAULT = ("single", "vote@2", "vote@4", "vote@8", "vote@16", "vote@16:min_samples=16", "waves@16", "confidence@16")
BIG = 4 << 20
"""Bytes from which on a bar shows how far the file has been read."""
BAR = 30


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `simulate` command."""
    parser = subparsers.add_parser(
        "simulate",
        help="compare sampling strategies on recorded answers, without a model",
        description="Let strategies of sampling decide over answers that were drawn before, and show how often they "
        "are right and what they cost. FILE has one problem a line; docs/simulate.md describes it. The strategies are "
        "the ones that the proxy runs.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="recorded problems, JSON Lines")
    parser.add_argument(
        "--strategy",
        action="append",
        metavar="S",
        help="NAME, NAME@SAMPLES or NAME@SAMPLES:KEY=VALUE,…, such as vote@16:epsilon=0.02; may be given several times",
    )
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="orders in which answers are drawn (1)")
    parser.add_argument("--seed", type=int, default=0, help="of those orders and of the judge (0)")
    parser.add_argument("--answer", default="auto", metavar="NAME", help="extractor that reads the answers (auto)")
    parser.add_argument("--at-once", type=int, default=64, metavar="N", help="answers drawn side by side (64)")
    parser.add_argument(
        "--token-s", type=float, default=0.02, metavar="S", help="seconds of a token where none are recorded (0.02)"
    )
    parser.add_argument(
        "--judge-accuracy",
        type=float,
        metavar="P",
        help="how often a judge prefers the right one of two answers; without it judges never know",
    )
    parser.add_argument("--judge-tokens", type=int, default=32, metavar="N", help="of one comparison (32)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, - for standard output")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw accuracy against tokens (needs matplotlib)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Play, print the table; 1 if the file or a strategy cannot be read, 2 if a value is out of range."""
    from predawn.proxy import loading

    simulation: Any = loading.part_of("sampling", "simulation.contest")
    recording: Any = loading.part_of("sampling", "simulation.recording")
    playing: Any = loading.part_of("sampling", "simulation.playing")
    if wrong := _out_of_range(options):
        print(f"predawn simulate: {wrong}", file=sys.stderr)
        return 2
    try:
        entries = [simulation.entry(text) for text in options.strategy or DEFAULT]
        rules = simulation.Rules(
            at_once=options.at_once,
            repeat=options.repeat,
            seed=options.seed,
            judge=playing.JudgeRules(
                options.judge_accuracy, options.judge_tokens, options.judge_tokens * options.token_s
            ),
        )
        with bar(options.file) as progress:
            problems = recording.problems(
                options.file, answer=options.answer, token_s=options.token_s, progress=progress
            )
            rows = [figures.row() for figures in simulation.contest(problems, entries, rules)]
        if not rows[0]["problems"]:
            raise recording.RecordingError(f"{options.file} has no problems")
        _give_out(options, rows)
    except (simulation.EntryError, recording.RecordingError, OSError) as exc:
        print(f"predawn simulate: {exc}", file=sys.stderr)
        return 1
    return 0


def _out_of_range(options: argparse.Namespace) -> str:
    if options.repeat < 1 or options.at_once < 1:
        return "--repeat and --at-once must be at least 1"
    if not 0 < options.token_s < 1e6:
        return "--token-s must be above 0"
    if options.judge_tokens < 0:
        return "--judge-tokens cannot be negative"
    if options.judge_accuracy is not None and not 0 <= options.judge_accuracy <= 1:
        return "--judge-accuracy must be between 0 and 1"
    return ""


def _give_out(options: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> None:
    document = json.dumps(
        {"file": options.file.name, "seed": options.seed, "repeat": options.repeat, "rows": rows}, indent=1
    )
    if options.json is not None and str(options.json) == "-":
        print(document)
    else:
        print("\n".join(table(rows)))
        if options.json is not None:
            options.json.write_text(document + "\n", encoding="utf-8")
    if options.plot is not None:
        draw(rows, options.plot)


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The figures in columns; tokens are of the average problem."""
    width = max(8, *(len(row["strategy"]) for row in rows))
    yield f"{'strategy':<{width}}  accuracy   ±      tokens  samples  seconds  agreement  ended because"
    for row in rows:
        whys = ", ".join(f"{why} {count / sum(row['why'].values()):.0%}" for why, count in list(row["why"].items())[:3])
        agreement = "" if row["agreement"] is None else f"{row['agreement']:.2f}"
        yield (
            f"{row['strategy']:<{width}}  {row['accuracy']:>8.1%}  {row['standard_error']:>5.1%}"
            f"  {row['tokens']:>8.1f}  {row['samples']:>7.2f}  {row['seconds']:>7.2f}  {agreement:>9}  {whys}"
        )
    yield f"{rows[0]['problems']} problems"


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Accuracy against tokens, one point for each strategy. Raises `OSError` where it cannot be drawn."""
    try:
        import matplotlib as mpl
    except ImportError as exc:
        raise OSError("--plot needs matplotlib: pip install predawn[plot]") from exc
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5))
    for row in rows:
        axes.errorbar(row["tokens"], row["accuracy"], yerr=row["standard_error"], fmt="o", capsize=2)
        axes.annotate(
            row["strategy"], (row["tokens"], row["accuracy"]), xytext=(5, 4), textcoords="offset points", size=7
        )
    axes.set_xscale("log")
    axes.set_xlabel("output tokens of a problem, everything counted")
    axes.set_ylabel("share right")
    axes.grid(visible=True, alpha=0.3)
    figure.tight_layout()
    try:
        figure.savefig(path, dpi=120, bbox_inches="tight")
    except ValueError as exc:
        raise OSError(f"{path}: {exc}") from exc
    finally:
        plt.close(figure)


@contextmanager
def bar(path: Path) -> Iterator[Callable[[int], None] | None]:
    """Shows on a terminal how much of a big file has been read; nothing elsewhere."""
    size = path.stat().st_size if path.exists() else 0
    if size < BIG or not sys.stderr.isatty():
        yield None
        return
    read = shown = 0

    def advance(count: int) -> None:
        nonlocal read, shown
        read += count
        filled = min(BAR, BAR * read // size)
        if filled > shown:
            shown = filled
            print(f"\r[{'#' * filled:<{BAR}}] {min(1.0, read / size):4.0%}", end="", file=sys.stderr, flush=True)

    try:
        yield advance
    finally:
        print(f"\r{' ' * (BAR + 8)}\r", end="", file=sys.stderr, flush=True)
