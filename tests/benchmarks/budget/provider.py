"""A provider in a process of its own, whose answers take different times: `python provider.py`."""

import asyncio
import sys
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.benchmarks.budget.latency import CHUNKS, INTERVAL_MS

from predawn.plugins.testing import Answer, Received, scripted_server

_draw = Random(7)


def answer(_: Received) -> Answer:
    """Four of five are right."""
    said = "42" if _draw.random() < 0.8 else str(_draw.randint(43, 99))
    return Answer(text="word " * (_draw.choice(CHUNKS) - 1) + said, interval_ms=INTERVAL_MS)


async def main() -> None:
    async with scripted_server(choose=answer) as server:
        print(server.base_url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
