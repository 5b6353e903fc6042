"""What a hook costs that nobody implements: `python tests/benchmarks/proxy/hooks_micro.py` prints nanoseconds.

Every entry point of the dispatcher is called the way a request calls it, with no plugin active, and the loop's own cost is
taken off. One process, one core, no server.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from predawn.plugins import Exchange, Reply

CALLS, REPEATS = 20_000, 15
Loop = Callable[[int], Awaitable[None]]


async def _nothing(calls: int) -> None:
    for _ in range(calls):
        pass


def unused_hooks_us() -> dict[str, float]:
    """µs per call of each entry point without an implementation. Raises ImportError where predawn is not installed."""
    return asyncio.run(_measure())


async def _measure() -> dict[str, float]:
    from predawn.plugins import Exchange
    from predawn.proxy.dispatch import Hooks, Observers
    from predawn.proxy.loading import register
    from predawn.proxy.tasks import Tasks

    hooks = Hooks(register([]))

    async def send(exchange: "Exchange") -> "Reply":
        raise AssertionError("never sent")

    pipeline = hooks.pipeline("m", send)
    assert pipeline.complete is send, "without around_completion the upstream is called directly: nothing to measure"
    observers = Observers(hooks.observers, Tasks())
    exchange = Exchange(b'{"model":"m","messages":[]}', model="m")

    async def on_request(calls: int) -> None:
        for _ in range(calls):
            await pipeline.edit(exchange)

    async def assess_and_allocate(calls: int) -> None:
        for _ in range(calls):
            await pipeline.decide(exchange)

    async def chunk_filter(calls: int) -> None:
        for _ in range(calls):
            pipeline.open_filters(exchange)

    async def on_done(calls: int) -> None:
        for _ in range(calls):
            observers.done(exchange)

    loops: dict[str, Loop] = {
        "on_request": on_request,
        "assess and allocate": assess_and_allocate,
        "chunk_filter": chunk_filter,
        "on_done": on_done,
    }
    floor = await _ns_per_call(_nothing)
    costs = {name: max(0.0, await _ns_per_call(loop) - floor) / 1000 for name, loop in loops.items()}
    return costs | {"around_completion": 0.0}  # `complete` is `send` itself, as asserted above


async def _ns_per_call(loop: Loop) -> float:
    """The median of several repeats: on a shared core single ones are disturbed."""
    await loop(CALLS // 10)
    took = []
    for _ in range(REPEATS):
        begun = perf_counter_ns()
        await loop(CALLS)
        took.append((perf_counter_ns() - begun) / CALLS)
    return median(took)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    for hook, cost_us in unused_hooks_us().items():
        print(f"{hook:20} {cost_us * 1000:6.0f} ns")
