"""Any OpenAI endpoint with and without sleep, on GSM8K's socratic problems: the same curves as of the bundled model.

The endpoint stands behind a `predawn serve` of its own. How much it thinks is set by an instruction after the question,
and by effort where `--reasoning` names the model's knob.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.evidence import Bar
from tests.benchmarks.sleep import problems, results
from tests.benchmarks.sleep.asking import Graded, Interview, Way, Wording, graded
from tests.benchmarks.sleep.cases import Case, all_named
from tests.benchmarks.sleep.curves import Tokens, economics
from tests.benchmarks.sleep.journal import Bar as ProgressBar
from tests.benchmarks.sleep.journal import Journal
from tests.benchmarks.sleep.site import serving, tokens_asleep

from predawn.plugins.sleep.worth import Prices

MODEL = "endpoint"
INSTRUCTIONS = {
    "number": "Answer with the number alone.",
    "sentence": "Answer in one short sentence that ends with the number.",
    "steps": "Think step by step, and end with the number.",
}
PLAIN = tuple(Way(name, sleeps=False, instruction=said) for name, said in INSTRUCTIONS.items())
NOTED = tuple(Way(f"notes, {name}", sleeps=True, instruction=said) for name, said in INSTRUCTIONS.items())
PASSES = (1, 2, 4)
PATIENCE_S = 900.0
KEY = "OPENAI_API_KEY"


@dataclass(frozen=True, slots=True)
class Plan:
    base_url: str
    model: str
    limit: int = 50
    """Problems."""
    reasoning: str = "none"
    streams: int = 4
    timed: int = 10
    """Problems whose questions are asked one at a time."""
    max_tokens: int = 1024

    def settings(self, **sleep: Any) -> dict[str, Any]:
        rules = {
            "policy": "always",
            "idle_s": 0,
            "calls_per_upstream": self.streams,
            "split": "last_paragraph",
            "discover": False,
            "tokens_per_day": None,
            **sleep,
        }
        upstream = {
            "name": "endpoint",
            "kind": "openai",
            "base_url": self.base_url,
            "api_key": f"${{{KEY}}}" if os.environ.get(KEY) else "none",
        }
        model = {"name": MODEL, "upstream": "endpoint", "model": self.model, "reasoning": self.reasoning}
        return {
            "upstreams": [upstream],
            "models": [model],
            "plugins": [{"sleep": rules}, "record"],
            "jobs": {"concurrency": self.streams},
        }


async def measure(plan: Plan, folder: Path) -> dict[str, Any]:
    """All figures; what is in `folder` from an interrupted run is not asked again."""
    cases = problems.cases(plan.limit)
    wording = Wording(MODEL, gap="\n\n", max_tokens=plan.max_tokens)
    with Journal(folder / "answers.jsonl") as journal:
        async with serving(folder / "default", plan.settings()) as site:
            bar = ProgressBar("asleep", len(cases))
            await site.client.sleep_on(cases, MODEL, bar.to, PATIENCE_S)
            interview = Interview(site.client, wording, journal)
            questions = all_named(cases, foreseeable=True)
            await interview.in_turns([PLAIN[-1], NOTED[-1]], all_named(cases[: plan.timed], foreseeable=True))
            await interview.at_once([*PLAIN, *NOTED], questions, plan.streams)
        for passes in PASSES:
            settings = plan.settings(max_passes=passes, questions=0, warm=False)
            async with serving(folder / f"passes-{passes}", settings) as site:
                bar = ProgressBar(f"asleep, {passes} passes", len(cases))
                await site.client.sleep_on(cases, MODEL, bar.to, PATIENCE_S)
                interview = Interview(site.client, wording, journal)
                await interview.at_once([NOTED[0]], questions, plan.streams, f"passes-{passes}/")
        return figures(plan, folder, journal, cases)


def figures(plan: Plan, folder: Path, journal: Journal, cases: Sequence[Case]) -> dict[str, Any]:
    """What the answers came to."""
    questions = all_named(cases, foreseeable=True)
    answers = {way.name: graded(journal, way.name, questions) for way in (*PLAIN, *NOTED)}
    thorough = answers[PLAIN[-1].name]
    equal = cheapest_equal(thorough, [answers[way.name] for way in NOTED])
    per_context = _asleep(folder / "default", len(cases))
    asked = results.tokens_of(thorough), results.tokens_of(equal)
    timed = all_named(cases[: plan.timed], foreseeable=True)
    return {
        "contexts": len(cases),
        "ways": {name: results.scores(given) for name, given in answers.items()},
        "gained": results.gained(thorough, equal),
        "tokens_at_equal_accuracy": asked[1].output / asked[0].output if asked[0].output else None,
        "times": results.times(
            graded(journal, PLAIN[-1].name, timed),
            graded(journal, NOTED[-1].name, timed),
        ),
        "costs": {
            "output tokens": results.costs(economics(per_context, *asked, prices=None)),
            "all tokens": results.costs(economics(per_context, *asked, prices=Prices())),
        },
        "passes": {
            str(passes): {
                **results.scores(graded(journal, NOTED[0].name, questions, f"passes-{passes}/")),
                "asleep_output_tokens": _asleep(folder / f"passes-{passes}", len(cases)).output,
            }
            for passes in PASSES
        },
    }


def _asleep(folder: Path, contexts: int) -> Tokens:
    return sum(tokens_asleep(folder / "state.db").values(), Tokens()) / contexts


def cheapest_equal(thorough: Sequence[Graded], noted: Sequence[Sequence[Graded]]) -> Sequence[Graded]:
    """Of the ways with notes that are right as often as thinking step by step without, the one with the fewest tokens;
    if there is none, the one that is right most often."""

    def right(answers: Sequence[Graded]) -> int:
        return sum(graded.right for graded in answers)

    equal = [answers for answers in noted if right(answers) >= right(thorough)]
    if equal:
        return min(equal, key=lambda answers: results.tokens_of(answers).output)
    return max(noted, key=right)


def bars(found: Mapping[str, Any]) -> dict[str, Bar]:
    """The bundled model's bars, for orientation: what another model makes of notes is its own."""
    even = found["costs"]["all tokens"]["t=10"]["break_even_queries"]
    return {
        "accuracy with sleep over without": Bar(found["gained"]["points"], 0.0, "points", at_least=True),
        "test-time tokens with sleep, of those without": Bar(found["tokens_at_equal_accuracy"], 0.2, "×"),
        "break-even at t = 10, prompts priced too": Bar(
            even, 3.0, "queries per context", "never" if even is None else ""
        ),
    }
