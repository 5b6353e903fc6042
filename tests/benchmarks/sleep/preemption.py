"""What sleep costs somebody who comes while it runs: time to the first token, on the engine that sleep is using.

Blocks of requests to a server that has nothing to sleep on, and to one that sleeps, take turns. Those that found a call of
sleep's under way are told apart: the server says so itself, for it ended that call.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
CONTEXTS = 12
"""Registered for each block in which the server sleeps; forgotten at its end, with what is left of their jobs."""
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


async def measure(plan: Plan, folder: Path) -> dict[str, Any]:
    draw = random.Random(plan.seed)
    told = stories.cases(plan.rounds * (CONTEXTS + plan.requests * (MOST_TRIES + 1)) + 2, "preemption")
    fresh = iter(told)
    idle: list[float] = []
    ending: list[float] = []
    between: list[float] = []
    bar = ProgressBar("rounds of preemption", plan.rounds)
    async with serving(folder, plan.settings()) as site:
        client = site.client
        for _ in range(2):
            await _first_s(client, next(fresh))
        for _ in range(plan.rounds):
            for _ in range(plan.requests):
                await asyncio.sleep(_gap_s(draw))
                idle.append(await _first_s(client, next(fresh)))
            contexts = [next(fresh) for _ in range(CONTEXTS)]
            await _register(client, contexts)
            wanted = len(ending) + plan.requests
            for _ in range(plan.requests * MOST_TRIES):
                await asyncio.sleep(_gap_s(draw))
                before = await _ended_calls(client)
                first_s = await _first_s(client, next(fresh))
                (ending if await _ended_calls(client) > before else between).append(first_s)
                if len(ending) == wanted or not await _is_under_way(client):
                    break
            await _forget(client, contexts)
            bar.step()
    return figures(idle, ending, between)


def _gap_s(draw: random.Random) -> float:
    """Long enough for sleep to go on, and never in step with it."""
    return IDLE_S + draw.uniform(0.6, 1.4)


async def _first_s(client: Client, case: Case) -> float:
    body = {
        "model": bundled.MODEL,
        "messages": [{"role": "user", "content": f"{case.context} {case.questions[0].text}"}],
        "max_tokens": 16,
        "temperature": 0,
    }
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


def figures(idle: Sequence[float], ending: Sequence[float], between: Sequence[float]) -> dict[str, Any]:
    """Times to the first token in seconds: with nothing to sleep on, ending a call of sleep's, and between two such."""
    return {
        "idle": _shown(idle),
        "sleeping": _shown([*ending, *between]),
        "sleeping, ending a call": _shown(ending),
        "sleeping, between two calls": _shown(between),
    }


def _shown(seconds: Sequence[float]) -> dict[str, Any]:
    if not seconds:
        return {"requests": 0}
    return {"requests": len(seconds), "p50_s": median(seconds), "mean_s": mean(seconds), "all_s": sorted(seconds)}


def bars(found: Mapping[str, Any]) -> dict[str, Bar]:
    """What is promised."""
    if not found["sleeping, ending a call"]["requests"]:
        value, reason = None, "no request came while sleep was asking"
    else:
        value, reason = found["sleeping"]["p50_s"] / found["idle"]["p50_s"], ""
    return {"first token while it sleeps, of that while it does not (p50)": Bar(value, SLOWER, "×", reason)}
