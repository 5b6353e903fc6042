"""What sleep costs somebody who comes while it runs: time to the first token, on the engine that sleep is using.

Blocks of requests to a server that has nothing to sleep on, and to one that sleeps, take turns. Of the latter, those count
that found a call of sleep's under way: the server says so itself, for it ended that call.
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
from tests.benchmarks.sleep.site import OFF, Client, serving

IDLE_S = 0.2
SLOWER = 1.1
CONTEXTS = 6
"""Registered for each block in which the server sleeps; forgotten at its end, with what is left of their jobs."""
MOST_TRIES = 10
"""Requests per block for each one wanted."""


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
    busy: list[float] = []
    missed: list[float] = []
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
            wanted = len(busy) + plan.requests
            for _ in range(plan.requests * MOST_TRIES):
                await asyncio.sleep(_gap_s(draw))
                before = await _ended_calls(client)
                first_s = await _first_s(client, next(fresh))
                (busy if await _ended_calls(client) > before else missed).append(first_s)
                if len(busy) == wanted:
                    break
            await _forget(client, contexts)
            bar.step()
    return figures(idle, busy, missed)


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


async def _ended_calls(client: Client) -> float:
    """How often the gate closed because somebody came."""
    return await client.metric("predawn_sleep_gate_closed_total", reason="busy")


def figures(idle: Sequence[float], busy: Sequence[float], missed: Sequence[float]) -> dict[str, Any]:
    """Times to the first token in seconds."""
    return {
        "idle_p50_s": median(idle),
        "sleeping_p50_s": median(busy),
        "ratio": median(busy) / median(idle),
        "idle_mean_s": mean(idle),
        "sleeping_mean_s": mean(busy),
        "idle": len(idle),
        "sleeping": len(busy),
        "between_two_calls_of_sleep": {"requests": len(missed), "p50_s": median(missed) if missed else None},
        "idle_s": sorted(round(seconds, 5) for seconds in idle),
        "sleeping_s": sorted(round(seconds, 5) for seconds in busy),
    }


def bars(found: Mapping[str, Any]) -> dict[str, Bar]:
    """What is promised."""
    reason = "" if found["sleeping"] else "no request came while sleep was asking"
    value = found["ratio"] if found["sleeping"] else None
    return {"first token while it sleeps, of that while it does not (p50)": Bar(value, SLOWER, "×", reason)}
