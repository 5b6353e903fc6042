"""kill -9 at random moments while a server sleeps on many contexts: all of it comes to what it would have come to.

The same contexts are slept on twice: undisturbed, and by servers of which one after the other is killed. Notes, foreseen
answers and what was paid for them have to be equal; calls are counted where they arrive, at the upstream.
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.evidence import Bar
from tests.benchmarks.sleep.cases import Case
from tests.benchmarks.sleep.clerk import Call, Clerk, clerk
from tests.benchmarks.sleep.journal import Bar as ProgressBar
from tests.benchmarks.sleep.site import Client, Site, serving

CONCURRENCY = 2
CALL_S = 40.0
"""A server that has been killed goes on within this time, or never."""
PATIENCE_S = 120.0
QUIET_S = 12.0
WORDS = ("harbour", "ledger", "engine", "orchard", "signal", "cabinet", "river", "archive")


@dataclass(frozen=True, slots=True)
class Plan:
    contexts: int = 50
    kills: int = 20
    seed: int = 11


@dataclass(slots=True)
class Course:
    """What the upstream saw: the calls of each server's life, in order."""

    lives: list[list[Call]] = field(default_factory=list[list[Call]])
    resumed_s: list[float] = field(default_factory=list[float])
    """From each server's first moment of listening to its first call."""

    @property
    def calls(self) -> list[Call]:
        return [call for life in self.lives for call in life]


def cases(count: int, seed: int) -> list[Case]:
    """Documents about nothing; the clerk goes by their numbers."""
    draw = random.Random(seed)
    texts = (" ".join(draw.choices(WORDS, k=60)) for _ in range(count))
    return [Case(f"document-{number}", f"This is document {number}. {text}.", ()) for number, text in enumerate(texts)]


def settings(upstream: Clerk) -> dict[str, Any]:
    rules = {
        "policy": "always",
        "idle_s": 0,
        "calls_per_upstream": CONCURRENCY,
        "questions": 3,
        "warm": False,
        "discover": False,
        "tokens_per_day": None,
    }
    return {
        "upstreams": [{"name": "clerk", "kind": "openai", "base_url": upstream.base_url, "api_key": "sk-clerk"}],
        "models": [{"name": "clerk", "upstream": "clerk"}],
        "plugins": [{"sleep": rules}],
        "jobs": {"concurrency": CONCURRENCY},
    }


async def measure(plan: Plan, folder: Path) -> dict[str, Any]:
    """Both runs, compared."""
    documents = cases(plan.contexts, plan.seed)
    async with clerk() as upstream:
        bar = ProgressBar("undisturbed", len(documents))
        async with serving(folder / "undisturbed", settings(upstream)) as site:
            await site.client.sleep_on(documents, "clerk", bar.to, PATIENCE_S)
            await _quiet(upstream)
            wanted = await outcome(site.client, documents)
        undisturbed = list(upstream.calls)
    async with clerk() as upstream:
        course, found = await _killed(plan, folder / "killed", upstream, documents, len(undisturbed))
    return figures(plan, wanted, found, undisturbed, course)


async def _killed(
    plan: Plan, folder: Path, upstream: Clerk, documents: Sequence[Case], calls: int
) -> tuple[Course, dict[str, Any]]:
    draw, course = random.Random(plan.seed + 1), Course()
    bar = ProgressBar("kills", plan.kills)
    for kill in range(plan.kills):
        left = calls - len({call.digest for call in upstream.calls})
        enough = draw.randrange(1, max(2, 2 * left // (plan.kills - kill + 1)))
        before = len(upstream.calls)
        async with serving(folder, settings(upstream)) as site:
            if kill == 0:
                await _register(site.client, documents)
            course.resumed_s.append(await _called(site, upstream, before, enough, draw.random() * 0.06))
        course.lives.append(upstream.calls[before:])
        bar.step(note=f"{len(upstream.calls)} calls")
    before = len(upstream.calls)
    async with serving(folder, settings(upstream)) as site:
        bar = ProgressBar("the rest", len(documents))
        await site.client.sleep_on(documents, "clerk", bar.to, PATIENCE_S)
        await _quiet(upstream)
        found = await outcome(site.client, documents)
    course.lives.append(upstream.calls[before:])
    return course, found


async def _quiet(upstream: Clerk) -> None:
    """Waits until nothing has been asked for a while: contexts are asleep before the last of their jobs is done."""
    known, since = -1, time.monotonic()
    while time.monotonic() - since < QUIET_S:
        if len(upstream.calls) != known:
            known, since = len(upstream.calls), time.monotonic()
        await asyncio.sleep(0.2)


async def _register(client: Client, documents: Sequence[Case]) -> None:
    for document in documents:
        await client.call("POST", "/contexts", {"id": document.id, "text": document.context, "model": "clerk"})


async def _called(site: Site, upstream: Clerk, before: int, enough: int, more_s: float) -> float:
    """Waits for so many calls and a moment more, then kills. Returns how long the first of them took to come."""
    began, first_s = time.monotonic(), float("nan")
    while len(upstream.calls) - before < enough and time.monotonic() - began < CALL_S:
        await asyncio.sleep(0.001)
        if first_s != first_s and len(upstream.calls) > before:  # noqa: PLR0124 - still NaN
            first_s = time.monotonic() - began
    await asyncio.sleep(more_s)
    site.kill()
    return first_s


async def outcome(client: Client, documents: Sequence[Case]) -> dict[str, Any]:
    """What sleep made of each context, without names and times, which differ between runs."""
    states = await client.states()
    found: dict[str, Any] = {}
    for document in documents:
        made = await client.call("GET", f"/contexts/{document.id}/notes")
        notes = [[one["status"], one["text"], one["passes"], one["sleep_tokens"]] for one in made["notes"]]
        expected = [
            [one["question"], one["answer"], one["verified"], one["sleep_tokens"]] for one in made["anticipated"]
        ]
        found[document.id] = {"state": states[document.id], "notes": sorted(notes), "anticipated": sorted(expected)}
    return found


def figures(
    plan: Plan, wanted: Mapping[str, Any], found: Mapping[str, Any], undisturbed: Sequence[Call], course: Course
) -> dict[str, Any]:
    """What was lost, and what was asked more than once."""
    different = [ident for ident in wanted if json.dumps(found.get(ident)) != json.dumps(wanted[ident])]
    needed = {call.digest for call in undisturbed}
    return {
        "contexts": plan.contexts,
        "kills": plan.kills,
        "calls_undisturbed": len(undisturbed),
        "calls_with_kills": len(course.calls),
        "calls_cut_off_by_kills": sum(not call.whole for call in course.calls),
        "calls_never_made": len(needed - {call.digest for call in course.calls}),
        "calls_nobody_needed": len({call.digest for call in course.calls} - needed),
        "most_times_of_a_call_in_one_life": most_in_a_life(course.lives),
        "steps_repeated_by_kill": repeated_by_kill(course.lives),
        "not_asleep": sum(one["state"] != "asleep" for one in found.values()),
        "different_from_undisturbed": len(different),
        "calls_per_life": [len(life) for life in course.lives],
        "first_call_after_start_s": [round(seconds, 3) for seconds in course.resumed_s],
    }


def most_in_a_life(lives: Sequence[Sequence[Call]]) -> int:
    """How often one step's call was made at most between two kills; 1 is right."""
    return max((max(Counter(call.digest for call in life).values()) for life in lives if life), default=0)


def repeated_by_kill(lives: Sequence[Sequence[Call]]) -> list[int]:
    """For each kill, how many steps of the life that it ended made a call that was made again in any later one."""
    found = []
    for number, life in enumerate(lives[:-1]):
        later = {call.digest for after in lives[number + 1 :] for call in after}
        found.append(len({call.step for call in life if call.digest in later}))
    return found


def bars(found: Mapping[str, Any]) -> dict[str, Bar]:
    """What is promised."""
    return {
        "killed: contexts not asleep at the end": Bar(float(found["not_asleep"]), 0),
        "killed: contexts whose notes, answers or costs differ from an undisturbed run": Bar(
            float(found["different_from_undisturbed"]), 0
        ),
        "killed: times that a call was made between two kills": Bar(
            float(found["most_times_of_a_call_in_one_life"]), 1
        ),
        "killed: steps done again after one kill, of those that may have been under way": Bar(
            max(found["steps_repeated_by_kill"], default=0) / CONCURRENCY, 1.0, "×"
        ),
        "killed: calls that nobody needed, or that were never made": Bar(
            float(found["calls_nobody_needed"] + found["calls_never_made"]), 0
        ),
    }
