"""The bundled model with and without sleep: a real server, real jobs, real notes in real requests."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.evidence import Bar
from tests.benchmarks.sleep import results, stories
from tests.benchmarks.sleep.asking import Interview, Way, Wording, graded
from tests.benchmarks.sleep.cases import Case, all_named
from tests.benchmarks.sleep.curves import Tokens, economics
from tests.benchmarks.sleep.journal import Bar as ProgressBar
from tests.benchmarks.sleep.journal import Journal
from tests.benchmarks.sleep.site import Client, serving, tokens_asleep

from predawn.plugins.sleep.worth import Prices

MODEL = "predawn-tiny"
PLAIN = Way("step by step", sleeps=False)
"""What the model does when nobody says how much to think."""
NOTED = Way("notes", sleeps=True)
OTHERS = (
    Way("at once", sleeps=False, members={"reasoning_effort": "none"}),
    Way("own choice", sleeps=False, members={"reasoning_effort": "auto"}),
    Way("notes, own choice", sleeps=True, members={"reasoning_effort": "auto"}),
    Way("notes, step by step", sleeps=True, members={"reasoning_effort": "high"}),
)
PASSES = (1, 2, 4, 8)
NEVER = 1e6
"""A break-even that does not come, as a figure that breaks its bar."""
PATIENCE_S = 300.0
POINTS_LOST = 1.0
"""At most, on the kind of unforeseeable question that loses most."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is asked."""

    limit: int = 400
    """Stories."""
    seed: str = "held out, asleep"
    weights: Path | None = None
    """Another checkpoint in place of the bundled one."""
    threads: int = 1
    streams: int = 4

    @property
    def timed(self) -> int:
        """Stories whose questions are asked one at a time."""
        return max(self.limit // 4, min(self.limit, 10))

    @property
    def unforeseen(self) -> int:
        """Stories whose unforeseeable questions are asked."""
        return max(self.limit // 2, min(self.limit, 20))

    @property
    def others(self) -> int:
        """Stories about which everything else is asked."""
        return max(self.limit // 4, min(self.limit, 10))

    def settings(self, **sleep: Any) -> dict[str, Any]:
        """The server's; what the plugin does by itself is left as it is, but for the times at which it may."""
        upstream: dict[str, Any] = {"name": "local", "kind": "local", "engine": {"threads": self.threads}}
        if self.weights is not None:
            upstream["path"] = str(self.weights)
        rules = {
            "policy": "always",  # 60 tokens of story are too few for `worthwhile`
            "idle_s": 0,
            "calls_per_upstream": self.streams,
            "split": "last_sentence",
            "discover": False,
            "style": "terse",
            "tokens_per_day": None,
            **sleep,
        }
        return {
            "upstreams": [upstream],
            "models": [{"name": MODEL, "upstream": "local", "reasoning": "reasoning_effort", "prefill": True}],
            "plugins": [{"sleep": rules}, "record"],
            "jobs": {"concurrency": self.streams},
        }


async def measure(plan: Plan, folder: Path) -> dict[str, Any]:
    """All figures; what is in `folder` from an interrupted run is not asked again."""
    cases = stories.cases(plan.limit, plan.seed)
    with Journal(folder / "answers.jsonl") as journal:
        await _gated(plan, folder, journal, cases)
        await _ungated(plan, folder, journal, cases)
        for passes in PASSES:
            await _swept(plan, folder, journal, cases[: plan.others], passes)
        return figures(plan, folder, journal, cases)


async def _sleep(client: Client, cases: Sequence[Case], what: str) -> None:
    bar = ProgressBar(what, len(cases))
    await client.sleep_on(cases, MODEL, bar.to, PATIENCE_S)


def _interview(client: Client, journal: Journal) -> Interview:
    return Interview(client, Wording(MODEL), journal)


async def _gated(plan: Plan, folder: Path, journal: Journal, cases: Sequence[Case]) -> None:
    """With the settings that a user has."""
    async with serving(folder / "gated", plan.settings()) as site:
        await _sleep(site.client, cases, "asleep")
        interview = _interview(site.client, journal)
        await interview.in_turns([PLAIN, NOTED], all_named(cases[: plan.timed], foreseeable=True))
        await interview.at_once([PLAIN, NOTED], all_named(cases[plan.timed :], foreseeable=True), plan.streams)
        await interview.at_once(OTHERS, all_named(cases[: plan.others], foreseeable=True), plan.streams)
        unforeseen = all_named(cases[: plan.unforeseen], foreseeable=False)
        await interview.at_once([PLAIN, NOTED], unforeseen, plan.streams)


async def _ungated(plan: Plan, folder: Path, journal: Journal, cases: Sequence[Case]) -> None:
    """The same notes, put into every request."""
    there = folder / "ungated"
    if not there.exists():
        half = folder / "half copied"
        shutil.rmtree(half, ignore_errors=True)
        shutil.copytree(folder / "gated", half, ignore=shutil.ignore_patterns("*.log", "*.yaml"))
        half.rename(there)
    async with serving(there, plan.settings(inject="always")) as site:
        unforeseen = all_named(cases[: plan.unforeseen], foreseeable=False)
        interview = _interview(site.client, journal)
        await interview.at_once([NOTED], unforeseen, plan.streams, "ungated/")


async def _swept(plan: Plan, folder: Path, journal: Journal, cases: Sequence[Case], passes: int) -> None:
    """So many passes at most, and nothing after the check."""
    settings = plan.settings(max_passes=passes, questions=0, warm=False)
    async with serving(folder / f"passes-{passes}", settings) as site:
        await _sleep(site.client, cases, f"asleep, {passes} passes")
        questions = all_named(cases, foreseeable=True)
        await _interview(site.client, journal).at_once([NOTED], questions, plan.streams, f"passes-{passes}/")


def figures(plan: Plan, folder: Path, journal: Journal, cases: Sequence[Case]) -> dict[str, Any]:
    """What the answers came to."""
    questions = all_named(cases, foreseeable=True)
    plain, noted = graded(journal, PLAIN.name, questions), graded(journal, NOTED.name, questions)
    timed = all_named(cases[: plan.timed], foreseeable=True)
    asleep = tokens_asleep(folder / "gated" / "state.db")
    per_context = sum(asleep.values(), Tokens()) / len(cases)
    asked = results.tokens_of(plain), results.tokens_of(noted)
    others = all_named(cases[: plan.others], foreseeable=True)
    return {
        "contexts": len(cases),
        "ways": {
            PLAIN.name: results.scores(plain),
            NOTED.name: results.scores(noted),
            **{way.name: results.scores(graded(journal, way.name, others)) for way in OTHERS},
        },
        "gained": results.gained(plain, noted),
        "share_answered_from_notes": results.from_notes(plain, noted),
        "times": results.times(graded(journal, PLAIN.name, timed), graded(journal, NOTED.name, timed)),
        "asleep_output_tokens_by_purpose": {name: tokens.output / len(cases) for name, tokens in asleep.items()},
        "costs": {
            "output tokens": results.costs(economics(per_context, *asked, prices=None)),
            "all tokens": results.costs(economics(per_context, *asked, prices=Prices())),
        },
        "passes": {str(passes): _pass_figures(folder, journal, passes, others, plan.others) for passes in PASSES},
        "unforeseeable": _unforeseen_figures(plan, journal, cases),
    }


def _pass_figures(folder: Path, journal: Journal, passes: int, questions: Any, contexts: int) -> dict[str, Any]:
    found = graded(journal, NOTED.name, questions, f"passes-{passes}/")
    plain = graded(journal, PLAIN.name, questions)
    asleep = sum(tokens_asleep(folder / f"passes-{passes}" / "state.db").values(), Tokens()) / contexts
    return {
        **results.scores(found),
        "asleep_output_tokens": asleep.output,
        "share_answered_from_notes": results.from_notes(plain, found),
    }


def _unforeseen_figures(plan: Plan, journal: Journal, cases: Sequence[Case]) -> dict[str, Any]:
    """By kind and all together: without sleep, with the gate, and without the gate."""
    questions = all_named(cases[: plan.unforeseen], foreseeable=False)
    kinds = dict.fromkeys(question.kind for _, _, question in questions)
    found: dict[str, Any] = {}
    for kind in (None, *kinds):
        chosen = [named for named in questions if kind is None or named[2].kind == kind]
        plain, gated = graded(journal, PLAIN.name, chosen), graded(journal, NOTED.name, chosen)
        ungated = graded(journal, NOTED.name, chosen, "ungated/")
        found[kind or "all"] = {
            "without sleep": results.scores(plain),
            "gate on": {**results.scores(gated), "gained": results.gained(plain, gated)},
            "gate off": {**results.scores(ungated), "gained": results.gained(plain, ungated)},
        }
    return found


def bars(found: Mapping[str, Any]) -> dict[str, Bar]:
    """What is promised of the bundled model."""
    plain, noted = found["ways"][PLAIN.name], found["ways"][NOTED.name]
    times, priced = found["times"], found["costs"]["all tokens"]["t=10"]
    even = priced["break_even_queries"]
    return {
        "accuracy with sleep over without": Bar(found["gained"]["points"], 0.0, "points", at_least=True),
        "test-time tokens with sleep, of those without": Bar(noted["output_tokens"] / plain["output_tokens"], 0.2, "×"),
        "time to the complete answer with sleep, of that without": Bar(
            times["noted_mean_s"] / times["plain_mean_s"], 1 / 3, "×"
        ),
        "break-even at t = 10, prompts priced too": Bar(
            NEVER if even is None else even, 3.0, "queries per context", "never" if even is None else ""
        ),
        "lost on unforeseeable questions, gate on": Bar(_most_lost(found["unforeseeable"]), POINTS_LOST, "points"),
    }


def _most_lost(kinds: Mapping[str, Any]) -> float:
    """On the kind that loses most; all together are a kind as well."""
    return max(-float(kind["gate on"]["gained"]["points"]) for kind in kinds.values())
