"""What sleep costs somebody who comes while it runs: time to the first token, on the engine that sleep is using.

Blocks of requests to a server that has nothing to sleep on, and to one that sleeps, take turns. Those that found a call of
sleep's under way are told apart: the server says so itself, for it ended that call. Requests are conversations of some 500
tokens, for which the bar stands, and single stories in turns: one step of the engine cannot be interrupted, and the shorter
the prompt, the more of the time to its first token that is.
"""

import asyncio
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.evidence import Bar
from tests.benchmarks.sleep import bundled, stories
from tests.benchmarks.sleep.cases import Case
from tests.benchmarks.sleep.curves import mean, median
from tests.benchmarks.sleep.journal import Bar as ProgressBar
from tests.benchmarks.sleep.site import OFF, UNDER_WAY, Client, serving

IDLE_S = 0.2
SLOWER = 1.1
LENGTHS = ("conversation", "story")
IDLE, ENDING, BETWEEN = "idle", "ending a call", "between two calls"
CONTEXTS = 12
"""Registered for each block in which the server sleeps; forgotten at its end, with what is left of their jobs."""
STORIES = 6
"""Of a conversation; what came before the question as others told it."""
MOST_TRIES = 4
"""Requests per block for each one wanted that finds a call under way."""


@dataclass(frozen=True, slots=True)
class Plan:
    rounds: int = 12
    requests: int = 6
    """Of each block."""
    seed: int = 13
    weights: Path | None = None
    threads: int = 1

    def settings(self) -> dict[str, Any]:
        """One call asleep at a time, as it is by default."""
        server = bundled.Plan(weights=self.weights, threads=self.threads)
        return server.settings(idle_s=IDLE_S, calls_per_upstream=1, max_passes=10, questions=0, warm=False)


@dataclass(slots=True)
class Times:
    """Seconds to the first token by length of the prompt and state of the server."""

    seconds: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def add(self, length: str, state: str, first_s: float) -> None:
        self.seconds.setdefault(f"{length}, {state}", []).append(first_s)

    def of(self, length: str, *states: str) -> list[float]:
        return [value for state in states for value in self.seconds.get(f"{length}, {state}", ())]


async def measure(plan: Plan, folder: Path) -> dict[str, Any]:
    draw = random.Random(plan.seed)
    fresh = _endless("preemption")
    times = Times()
    bar = ProgressBar("rounds of preemption", plan.rounds)
    async with serving(folder, plan.settings()) as site:
        client = site.client
        for length in LENGTHS:
            await _first_s(client, fresh, length)
        for _ in range(plan.rounds):
            for number in range(plan.requests):
                await asyncio.sleep(_gap_s(draw))
                length = LENGTHS[number % 2]
                times.add(length, IDLE, await _first_s(client, fresh, length))
            contexts = [next(fresh) for _ in range(CONTEXTS)]
            await _register(client, contexts)
            await _disturb(client, plan, draw, fresh, times)
            await _forget(client, contexts)
            bar.step()
    return figures(times)


async def _disturb(client: Client, plan: Plan, draw: random.Random, fresh: Iterator[Case], times: Times) -> None:
    """Requests while there is something to sleep on, until enough of them have ended a call of sleep's."""
    hits = 0
    for number in range(plan.requests * MOST_TRIES):
        await asyncio.sleep(_gap_s(draw))
        length = LENGTHS[number % 2]
        before = await _ended_calls(client)
        first_s = await _first_s(client, fresh, length)
        is_hit = await _ended_calls(client) > before
        if not await _is_under_way(client):
            return
        times.add(length, ENDING if is_hit else BETWEEN, first_s)
        hits += is_hit
        if hits == plan.requests:
            return


def _endless(seed: str) -> Iterator[Case]:
    """Stories of which no two are the same."""
    for number in itertools.count():
        yield from stories.cases(20, f"{seed} {number}")


def _gap_s(draw: random.Random) -> float:
    """Long enough for sleep to go on, and never in step with it."""
    return IDLE_S + draw.uniform(0.6, 1.4)


async def _first_s(client: Client, fresh: Iterator[Case], length: str) -> float:
    case = next(fresh)
    before = [next(fresh) for _ in range(STORIES - 1)] if length == LENGTHS[0] else []
    messages = [{"role": "user", "content": told.context} for told in before]
    messages.append({"role": "user", "content": f"{case.context} {case.questions[0].text}"})
    body = {"model": bundled.MODEL, "messages": messages, "max_tokens": 16, "temperature": 0}
    return (await client.ask(body, OFF)).first_s


async def _register(client: Client, contexts: Sequence[Case]) -> None:
    for case in contexts:
        body = {"id": case.id, "text": case.context, "model": bundled.MODEL}
        await client.call("POST", "/contexts", body)
        await client.call("POST", f"/contexts/{case.id}/sleep", {})


async def _forget(client: Client, contexts: Sequence[Case]) -> None:
    for case in contexts:
        await client.call("DELETE", f"/contexts/{case.id}")


async def _is_under_way(client: Client) -> bool:
    """Whether any context is still to be slept on, or is just now."""
    return any(state in UNDER_WAY for state in (await client.states()).values())


async def _ended_calls(client: Client) -> float:
    """How often the gate closed because somebody came."""
    return await client.metric("predawn_sleep_gate_closed_total", reason="busy")


def figures(times: Times) -> dict[str, Any]:
    """By length of the prompt: with nothing to sleep on, while it sleeps, and of these the ones that ended a call."""
    return {
        length: {
            "idle": _shown(times.of(length, IDLE)),
            "sleeping": _shown(times.of(length, ENDING, BETWEEN)),
            "sleeping, ending a call": _shown(times.of(length, ENDING)),
        }
        for length in LENGTHS
    }


def _shown(seconds: Sequence[float]) -> dict[str, Any]:
    if not seconds:
        return {"requests": 0}
    return {"requests": len(seconds), "p50_s": median(seconds), "mean_s": mean(seconds), "all_s": sorted(seconds)}


def bars(found: Mapping[str, Any]) -> dict[str, Bar]:
    """What is promised."""
    long = found[LENGTHS[0]]
    if not long["sleeping, ending a call"]["requests"]:
        value, reason = None, "no request came while sleep was asking"
    else:
        value, reason = long["sleeping"]["p50_s"] / long["idle"]["p50_s"], ""
    return {"first token while it sleeps, of that while it does not (p50)": Bar(value, SLOWER, "×", reason)}
