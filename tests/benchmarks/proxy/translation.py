"""What LiteLLM costs a server: `python -m tests.benchmarks.proxy.translation` prints its import, memory and CPU.

Calls go to the fake Anthropic of the tests, in a process of its own, so that only the proxy's side is measured.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

CHUNKS = 200
CALLS = 200


def serve(port: Any) -> None:
    from tests.fixtures.anthropic_server import AnthropicServer, Message

    async def run() -> None:
        async with AnthropicServer() as server:
            server.default = lambda seen: Message(text=("word ",) * seen.body["max_tokens"])  # type: ignore[method-assign]
            port.send(server.port)
            await asyncio.Event().wait()

    asyncio.run(run())


def resident_mb() -> float:
    """Resident memory of this process, as Linux tells it."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


async def measure(port: int) -> dict[str, float]:
    from tests.fixtures.anthropic_server import KEY

    from predawn.proxy.clock import SystemClock
    from predawn.proxy.settings import UpstreamSettings
    from predawn.proxy.upstreams.base import UpstreamRequest
    from predawn.proxy.upstreams.litellm import LiteLLMUpstream

    settings = UpstreamSettings(name="up", kind="litellm", base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY)
    upstream = LiteLLMUpstream(settings, SystemClock())

    async def call(words: int, *, stream: bool) -> None:
        body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": words, "stream": stream}
        encoded = json.dumps(body).encode()
        reply = await upstream.send(
            UpstreamRequest("chat", "POST", "/", "anthropic/claude-sonnet-4-5", encoded, {}, stream, dict)
        )
        assert reply.status == 200
        assert reply.source is not None
        async for _ in reply.source:
            pass
        await reply.source.aclose()

    async def cpu_of(words: int, *, stream: bool) -> float:
        for _ in range(10):
            await call(words, stream=stream)
        began = time.process_time()
        for _ in range(CALLS):
            await call(words, stream=stream)
        return (time.process_time() - began) / CALLS * 1e3

    before, began = resident_mb(), time.perf_counter()
    await upstream.open()
    opened, loaded = time.perf_counter() - began, resident_mb()
    whole = await cpu_of(1, stream=False)
    short, long = await cpu_of(1, stream=True), await cpu_of(CHUNKS, stream=True)
    used = resident_mb()
    await cpu_of(1, stream=True)
    figures = {
        "open_s": opened,
        "memory_of_import_mb": loaded - before,
        "memory_after_calls_mb": used - before,
        "memory_growth_of_200_more_calls_mb": resident_mb() - used,
        "cpu_per_call_ms": whole,
        "cpu_per_stream_ms": short,
        "cpu_per_chunk_ms": (long - short) / (CHUNKS - 1),
    }
    await upstream.aclose()
    return figures


def main() -> None:
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    figures = asyncio.run(measure(ours.recv()))
    server.terminate()
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}, indent=2))


if __name__ == "__main__":
    main()
