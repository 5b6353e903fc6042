"""Budget and sampling together, end to end: real requests through a real proxy that learns while they come.

A server for each target of mean tokens. A share of the answers is told right or wrong afterwards, as users do; that and
the agreement of samples is all that is learnt from. Requests of other problems come first and are not counted: what a
cold start costs is shown apart.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.benchmarks.budget.played import Outcomes
from tests.benchmarks.budget.problems import Problem, is_right
from tests.benchmarks.budget.recording import TEMPERATURE
from tests.benchmarks.budget.site import Answer, Client, Upstream, serving
from tests.benchmarks.sleep.journal import Bar, Journal

TIGHT, AMPLE = "tight", "ample"
TIERS = ("direct", "think")


@dataclass(frozen=True, slots=True)
class Costs:
    """What a request takes in each tier, as the settings' `tokens` tell it: a user measures that once."""

    direct: float
    think: float


@dataclass(frozen=True, slots=True)
class Plan:
    targets: Mapping[str, float]
    """Mean tokens that a request may take, by name."""
    costs: Costs
    told: float = 0.3
    """Share of answers that get feedback."""
    width: int = 16
    streams: int = 6

    def plugins(self, target: float) -> list[Any]:
        tiers = [
            {"name": "direct", "below": 0.3, "effort": "none", "tokens": self.costs.direct},
            {"name": "think", "effort": "medium", "samples": self.width, "tokens": self.costs.think},
        ]
        budget = {
            "policy": "marginal",
            "target_tokens": target,
            "tiers": tiers,
            "shape": False,
            "probe": "off",  # 2 tokens of an answer at once, but 60 of its prompt: more than it could save here
            "estimators": ["features"],  # all stories share their words, so that neighbours by words tell nothing
            "learning": {"flush_s": 0.5},
        }
        return [{"budget": budget}, {"sampling": {"strategy": "confidence", "fallback": "single"}}]


async def run(
    plan: Plan,
    upstream: Upstream,
    folder: Path,
    journal: Journal,
    first: Sequence[Problem],
    counted: Sequence[Problem],
) -> None:
    """Ask everything that is not in the journal, in one order for all targets."""
    problems = [*_mixed(first), *_mixed(counted)]
    for name, target in plan.targets.items():
        missing = [one for one in problems if f"{name}/{one.id}" not in journal]
        bar = Bar(f"adaptive, {name}", len(problems), len(problems) - len(missing))
        if not missing:
            continue
        async with serving(folder / name, upstream.settings(*plan.plugins(target))) as client:
            left = iter(missing)
            async with asyncio.TaskGroup() as group:
                for _ in range(plan.streams):
                    group.create_task(_ask(client, left, plan, journal, name, bar))


async def _ask(client: Client, left: Iterator[Problem], plan: Plan, journal: Journal, name: str, bar: Bar) -> None:
    for problem in left:
        answer = await client.ask(problem.question, temperature=TEMPERATURE)
        right = is_right(answer.text, problem.answer)
        if Random(f"{name} {problem.id}").random() < plan.told:
            await client.tell(answer.exchange_id, correct=right)
        journal.add(f"{name}/{problem.id}", [right, *astuple(answer)])
        bar.step()


def _mixed(problems: Sequence[Problem]) -> list[Problem]:
    """As they come to a server: not by depth in turns."""
    return Random("order of arrival").sample(list(problems), len(problems))


def answers(journal: Journal, name: str, problems: Sequence[Problem]) -> list[tuple[bool, Answer]]:
    """What was answered, in the order of the problems."""
    kept = (journal[f"{name}/{one.id}"] for one in problems)
    return [(bool(right), Answer(*values)) for right, *values in kept]


def outcomes(journal: Journal, name: str, problems: Sequence[Problem]) -> Outcomes:
    """As the other ways of asking are counted."""
    found = Outcomes(f"adaptive, {name}")
    for right, answer in answers(journal, name, problems):
        found.add(float(right), answer.tokens, answer.further_prompts)
    return found


def details(journal: Journal, name: str, problems: Sequence[Problem]) -> dict[str, Any]:
    """Which tiers requests were given, by depth."""
    shares: dict[int, dict[str, float]] = {}
    counts: dict[int, int] = {}
    for problem, (_, answer) in zip(problems, answers(journal, name, problems), strict=True):
        given = shares.setdefault(problem.depth, dict.fromkeys(TIERS, 0.0))
        given[answer.tier] = given.get(answer.tier, 0.0) + 1.0
        counts[problem.depth] = counts.get(problem.depth, 0) + 1
    return {
        str(depth): {tier: count / counts[depth] for tier, count in given.items()}
        for depth, given in sorted(shares.items())
    }
