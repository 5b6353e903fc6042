"""Several strategies over one recording: a line of figures for each. Problems come in the order of the file."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from math import sqrt
from typing import Any, get_args

from predawn.plugins.sampling.control import BOUNDS
from predawn.plugins.sampling.settings import Fallback
from predawn.plugins.sampling.simulation.playing import JudgeRules, Outcome, Play
from predawn.plugins.sampling.simulation.recording import Problem
from predawn.plugins.sampling.strategies import STRATEGIES
from predawn.plugins.sampling.strategies.protocol import Options
from predawn.plugins.sampling.strategies.trust import Trust


class EntryError(ValueError):
    """A strategy that cannot be meant; the message says what could."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A strategy with its options, as named on the command line."""

    label: str
    name: str
    options: Options


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for every strategy."""

    at_once: int = 64
    repeat: int = 1
    """Orders in which each problem's answers are drawn: the recorded one, then others."""
    seed: int = 0
    judge: JudgeRules = field(default_factory=JudgeRules)


@dataclass(slots=True)
class Figures:
    """What a strategy came to, over all problems and orders."""

    entry: Entry
    problems: int = 0
    plays: int = 0
    correct: float = 0.0
    squared: float = 0.0
    """Sum over problems of the squared share that was right, for the standard error."""
    tokens: int = 0
    prompt_tokens: int = 0
    samples: int = 0
    seconds: float = 0.0
    agreement: float = 0.0
    compared: int = 0
    whys: Counter[str] = field(default_factory=Counter[str])

    def add(self, problem: Problem, outcomes: list[Outcome]) -> None:
        """Count one problem, played in several orders."""
        share = sum(outcome.correct for outcome in outcomes) / len(outcomes)
        self.problems += 1
        self.plays += len(outcomes)
        self.correct += share
        self.squared += share * share
        for outcome in outcomes:
            self.tokens += outcome.tokens
            self.prompt_tokens += problem.prompt_tokens * outcome.samples
            self.samples += outcome.samples
            self.seconds += outcome.seconds
            self.whys[outcome.why] += 1
            if outcome.agreement is not None:
                self.agreement += outcome.agreement
                self.compared += 1

    @property
    def accuracy(self) -> float:
        return self.correct / self.problems if self.problems else 0.0

    @property
    def error(self) -> float:
        """Standard error of the accuracy."""
        return sqrt(max(0.0, self.squared / self.problems - self.accuracy**2) / self.problems) if self.problems else 0.0

    def row(self) -> dict[str, Any]:
        """The figures for each problem, ready for JSON."""
        plays = max(1, self.plays)
        return {
            "strategy": self.entry.label,
            "problems": self.problems,
            "accuracy": round(self.accuracy, 5),
            "standard_error": round(self.error, 5),
            "tokens": round(self.tokens / plays, 2),
            "prompt_tokens": round(self.prompt_tokens / plays, 2),
            "samples": round(self.samples / plays, 3),
            "seconds": round(self.seconds / plays, 4),
            "agreement": round(self.agreement / self.compared, 4) if self.compared else None,
            "why": dict(self.whys.most_common()),
        }


def contest(problems: Iterable[Problem], entries: Iterable[Entry], rules: Rules) -> list[Figures]:
    """Let each strategy play each problem. The same seed gives the same figures."""
    figures = [Figures(entry if entry.options.trust else _with_trust(entry)) for entry in entries]
    for problem in problems:
        chance = random.Random(f"{rules.seed} {problem.name}")  # noqa: S311 - orders of play, nothing secret
        others = (chance.sample(problem.drawn, len(problem.drawn)) for _ in range(rules.repeat - 1))
        orders = [list(problem.drawn), *others]
        for line in figures:
            line.add(problem, [_play(line.entry, problem, order, rules, turn) for turn, order in enumerate(orders)])
    return figures


def _with_trust(entry: Entry) -> Entry:
    """What `confidence` learns from one problem it uses in the next, as in a server."""
    return replace(entry, options=replace(entry.options, trust=Trust()))


def _play(entry: Entry, problem: Problem, order: list[Any], rules: Rules, turn: int) -> Outcome:
    samples = min(entry.options.samples, len(order))
    options = replace(entry.options, samples=samples, min_samples=min(entry.options.min_samples, samples))
    chance = random.Random(f"{rules.seed} {problem.name} {entry.label} {turn}")  # noqa: S311 - a played judge's dice
    strategy = STRATEGIES[entry.name](options)
    return Play(strategy, order, at_once=rules.at_once, judge=rules.judge, chance=chance).run()


_READ: Mapping[str, Callable[[str], Any]] = {
    "samples": int, "rounds": int, "min_samples": int, "first": int, "epsilon": float, "beta": float,
    "hedge_after_s": float, "fallback": str,
}  # fmt: skip


def entry(text: str) -> Entry:
    """`vote`, `vote@16`, `vote@16:epsilon=0.02,min_samples=4`. Raises `EntryError`."""
    head, _, rest = text.partition(":")
    name, _, number = head.partition("@")
    if name not in STRATEGIES:
        raise EntryError(f"there is no strategy {name!r}; there are {', '.join(STRATEGIES)}")
    given: dict[str, Any] = {"samples": 16, "rounds": 3, "first": 3}
    try:
        if number:
            given["samples"] = int(number)
        for part in filter(None, rest.split(",")):
            key, _, value = part.partition("=")
            given[key.strip()] = _READ[key.strip()](value.strip())
    except (KeyError, ValueError) as exc:
        known = ", ".join(option.name for option in fields(Options) if option.name in _READ)
        raise EntryError(f"{text!r} cannot be read: NAME@SAMPLES:KEY=VALUE,… with {known}") from exc
    for key, value in given.items():
        if key == "fallback":
            if value not in get_args(Fallback):
                raise EntryError(f"{text!r}: fallback is {' or '.join(get_args(Fallback))}")
            continue
        least, most = BOUNDS[key] if key != "samples" else (1, 1024)
        if not least <= value <= most:
            raise EntryError(f"{text!r}: {key} must be between {least:g} and {most:g}")
    return Entry(text, name, Options(**given))
