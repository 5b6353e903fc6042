"""How much longer a vote of 16 takes than one answer, where the upstream has room for all of them: a scripted one."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.budget.site import Client, Upstream, serving
from tests.benchmarks.evidence import Bar
from tests.benchmarks.sleep.journal import Bar as ProgressBar

INTERVAL_MS = 10
CHUNKS = range(54, 67)
"""Length of an answer, drawn evenly."""
WAYS: dict[str, Any] = {
    "one answer": "off",
    "vote of 16, all awaited": {"strategy": "vote", "samples": 16, "min_samples": 16},
    "vote of 16, stops early": {"strategy": "vote", "samples": 16},
}
LIMIT = 1.3


@asynccontextmanager
async def provider() -> AsyncIterator[str]:
    """The scripted upstream in a process of its own; its base URL."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__).with_name("provider.py")), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.kill()
        await process.wait()


async def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """All ways in turn, so that what else the machine does touches all of them alike."""
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    async with provider() as base_url:
        settings = Upstream(base_url, "scripted", "none").settings({"sampling": {}})
        async with serving(folder, settings) as client:
            bar = ProgressBar("latency", rounds)
            await _in_turn(client, {name: [] for name in WAYS})
            for _ in range(rounds):
                await _in_turn(client, seconds)
                bar.step()
    found = {name: {"median_s": median(values), "worst_s": max(values)} for name, values in seconds.items()}
    one = found["one answer"]["median_s"]
    return {name: {**values, "of_one_answer": values["median_s"] / one} for name, values in found.items()}


async def _in_turn(client: Client, seconds: dict[str, list[float]]) -> None:
    for name, wish in WAYS.items():
        answer = await client.ask("How much is 6 times 7?", predawn={"sampling": wish})
        seconds[name].append(answer.seconds)


def bars(found: dict[str, Any]) -> dict[str, Bar]:
    return {
        "vote of 16 where the upstream has room, median": Bar(
            found["vote of 16, all awaited"]["of_one_answer"], LIMIT, "× the median of one answer"
        )
    }
