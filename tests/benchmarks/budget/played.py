"""Every strategy over the same recorded answers, with the strategies' own code, problem by problem."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import sqrt
from random import Random
from statistics import fmean
from typing import Any

import msgspec

from predawn.plugins.sampling.simulation.contest import Entry, Figures, Rules, contest, entry
from predawn.plugins.sampling.simulation.recording import Line, read_problem
from predawn.plugins.sampling.simulation.recording import Problem as Recorded
from predawn.plugins.sampling.strategies.trust import Trust

WIDTHS = (2, 3, 4, 8, 16, 32, 64)
SURE_WIDTHS = (2, 4, 8)
"""Of settings whose votes are weighed by how sure the model was."""
THINK, DIRECT = "think, one answer", "at once, one answer"
CHECKED = "best_of, equations checked"
SURE = "confidence, one where it is sure"
"""What the samples of the adaptive runs are drawn by, for every request."""
RULES = Rules(repeat=2)


@dataclass(slots=True)
class Outcomes:
    """What one way of asking came to, problem by problem in the order of the problems."""

    name: str
    right: list[float] = field(default_factory=list[float])
    output: list[float] = field(default_factory=list[float])
    further_prompts: list[float] = field(default_factory=list[float])
    """Prompt tokens of all calls but the first, which no way of asking can do without."""

    def add(self, right: float, output: float, further_prompts: float) -> None:
        self.right.append(right)
        self.output.append(output)
        self.further_prompts.append(further_prompts)

    @property
    def accuracy(self) -> float:
        return fmean(self.right) if self.right else float("nan")

    @property
    def tokens(self) -> float:
        """All that it costs beyond being asked once: output, discarded output, prompts of further calls."""
        return fmean(self.output) + fmean(self.further_prompts) if self.output else float("nan")

    def as_json(self) -> dict[str, Any]:
        error = sqrt(max(0.0, fmean(one * one for one in self.right) - self.accuracy**2) / len(self.right))
        return {
            "right": self.accuracy,
            "standard_error": error,
            "tokens": self.tokens,
            "output_tokens": fmean(self.output),
            "further_prompt_tokens": fmean(self.further_prompts),
        }


def uniform(samples: int) -> dict[str, str]:
    """Settings that spend the same on all requests, as `predawn simulate` names them."""
    named = {f"vote of {width}": f"vote@{width}:min_samples={width}" for width in WIDTHS if width <= samples}
    named |= {f"confidence of {width}": f"confidence@{width}:min_samples={width}" for width in SURE_WIDTHS}
    return {name: f"{text},fallback=single" for name, text in named.items()}


def stopping(samples: int) -> dict[str, str]:
    """Strategies that look at the answers."""
    most = min(16, samples)
    names = {
        f"vote@{most}, stops early": f"vote@{most}",
        f"vote@{most}, ε = 0.1": f"vote@{most}:epsilon=0.1",
        f"vote@{most}, ε = 0.02": f"vote@{most}:epsilon=0.02",
        "vote@4, stops early": "vote@4",
        f"vote@{samples}, stops early": f"vote@{samples}",
        "waves, cheap": f"waves@{most}:beta=0",
        "waves": f"waves@{most}",
        "waves, thorough": f"waves@{most}:beta=1",
        SURE: f"confidence@{most}",
        "first 3 of 8": "first_m_of_k@8:first=3",
    }
    return {name: text + (",fallback=single" if ":" in text else ":fallback=single") for name, text in names.items()}


def play(records: Iterable[Mapping[str, Any]], samples: int) -> dict[str, Outcomes]:
    """All ways, by name."""
    named = {**uniform(samples), **stopping(samples)}
    entries = [_learning(text) for text in named.values()]
    best_of = [entry(f"best_of@{min(16, samples)}:fallback=single")]
    found = {name: Outcomes(name) for name in (DIRECT, f"{DIRECT}, greedy", THINK, f"{THINK}, greedy", *named)}
    for record in records:
        _add_singles(found, record)
        problem = recorded(record)
        for name, figures in zip(named, contest([problem], entries, RULES), strict=True):
            _add(found[name], figures, problem)
        if (checked := _checked(record)) is not None:
            _add(found.setdefault(CHECKED, Outcomes(CHECKED)), contest([checked], best_of, RULES)[0], checked)
    return found


def _learning(text: str) -> Entry:
    """What it learns from one problem it uses in the next ones."""
    made = entry(text)
    return replace(made, options=replace(made.options, trust=Trust()))


def _add(outcomes: Outcomes, figures: Figures, problem: Recorded) -> None:
    further = max(figures.samples / figures.plays - 1.0, 0.0)
    outcomes.add(figures.accuracy, figures.tokens / figures.plays, problem.prompt_tokens * further)


def _checked(record: Mapping[str, Any]) -> Recorded | None:
    """With a verdict on each answer, where thoughts were checked. Votes are played without: verdicts weigh them."""
    branches = record["branches"]
    if not all("sound" in branch for branch in branches):
        return None
    judged = [{**branch, "verdicts": ["pass" if branch["sound"] else "violation"]} for branch in branches]
    return recorded({**record, "branches": judged})


def recorded(record: Mapping[str, Any], member: str = "branches") -> Recorded:
    """A record as the simulator has it, its answers in an order of their own.

    The engine draws the nth answer to every problem by the same luck: were they played in its order, the same slips
    would come to all problems at once, and no standard error would tell of it.
    """
    answers = record[member]
    line = {
        **{name: record[name] for name in ("id", "question", "answer", "prompt_tokens")},
        "branches": Random(f"order of {record['id']}").sample(answers, len(answers)),
    }
    return read_problem(msgspec.convert(line, Line), str(record["id"]))


def _add_singles(found: Mapping[str, Outcomes], record: Mapping[str, Any]) -> None:
    """The mean over all answers of a kind: one answer as it comes on the average."""
    for name, member in (
        (DIRECT, "direct"),
        (f"{DIRECT}, greedy", "greedy_direct"),
        (THINK, "branches"),
        (f"{THINK}, greedy", "greedy"),
    ):
        drawn = recorded(record, member).drawn
        found[name].add(
            fmean(float(one.correct) for one in drawn), fmean(float(one.sample.tokens) for one in drawn), 0.0
        )


def by_depth(outcomes: Outcomes, depths: Sequence[int]) -> dict[str, float]:
    """The share right at each depth."""
    right: dict[int, list[float]] = {}
    for depth, share in zip(depths, outcomes.right, strict=True):
        right.setdefault(depth, []).append(share)
    return {str(depth): fmean(right[depth]) for depth in sorted(right)}
