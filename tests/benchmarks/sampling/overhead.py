"""What sampling costs beyond the upstream's time: `python tests/benchmarks/sampling/overhead.py`, or `make bench-sampling`.

- The machinery: the plugin around an upstream that has everything at once, in memory, against what the same chunks cost
  when they are only iterated. Fitted over numbers of samples and chunks, so that what belongs to a request, to a sample
  and to a chunk can be told apart. Decoding chunks and reading them (`Heard`) is part of it.
- The neighbours: how long a chunk of another request waits in a server that serves 64 samples of one, at the 99th
  percentile.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter, process_time_ns
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.benchmarks.evidence import CHECKOUT, Bar, Evidence, versions_of
from tests.benchmarks.sampling.picture import draw

if TYPE_CHECKING:
    from predawn.plugins import Chunk, Exchange, Reply

SAMPLES, CHUNKS, REPEATS = (2, 4, 8, 16), (16, 64, 256), 25
INTERVAL_MS, WARM_UP_S, MEASURED_S = 10, 1.0, 6.0
DELTA = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m",'
    b'"system_fingerprint":"fp","choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}]}'
    b"\n\n"
)
LAST = DELTA.replace(b" word", b" is 42.").replace(b'"finish_reason":null', b'"finish_reason":"stop"')
USAGE = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":[],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":16,"total_tokens":25}}\n\n'
)
DONE = b"data: [DONE]\n\n"


def made(chunks: int) -> list[bytes]:
    return [*[DELTA] * (chunks - 1), LAST, USAGE, DONE]


async def events(raws: Sequence[bytes]) -> AsyncIterator[Chunk]:
    from predawn.plugins import Chunk

    for raw in raws:
        yield Chunk(raw, is_last=raw is DONE)


def answering(raws: Sequence[bytes]) -> Callable[[Exchange], Any]:
    from predawn.plugins import Call, Reply

    async def call_next(exchange: Exchange) -> Reply:
        exchange.ledger.calls.append(Call("up", "m", "sample", status=200, outcome="ok"))
        exchange.upstream = "up"
        return Reply.of_chunks(events(raws), headers={"Content-Type": "text/event-stream"})

    return call_next


def request(samples: int, strategy: str) -> Exchange:
    from predawn.plugins import Exchange

    body = b'{"model":"m","messages":[{"role":"user","content":"How much is 6 times 7?"}],"stream":true}'
    wish = {"strategy": strategy, "samples": samples, "min_samples": samples}
    return Exchange(body, model="m", stream=True, control={"sampling": wish}, started=perf_counter())


async def machinery(strategy: str = "vote") -> dict[str, float]:
    """Microseconds per request, per sample and per chunk of a sample."""
    from prometheus_client import CollectorRegistry

    from predawn.plugins.sampling import SamplingPlugin, SamplingSettings
    from predawn.plugins.testing import ManualClock
    from predawn.proxy.lifespan import App
    from predawn.proxy.metrics import Metrics
    from predawn.proxy.settings import Settings
    from predawn.proxy.tasks import Tasks

    plugin = SamplingPlugin(SamplingSettings(at_once=64))
    metrics: Any = Metrics(CollectorRegistry())
    nothing: Any = None
    app = App(Settings(), ManualClock(), metrics, Tasks(), nothing, nothing, nothing, nothing)
    rows: list[tuple[list[float], float]] = []
    async for _ in plugin.lifespan(app):
        for samples in SAMPLES:
            for chunks in CHUNKS:
                raws = made(chunks)
                rows.append(([1.0, samples, samples * (chunks + 2)], await _extra_us(plugin, samples, raws, strategy)))
    per_request, per_sample, per_chunk = _fitted(rows)
    return {"per_request_us": per_request, "per_sample_us": per_sample, "per_chunk_us": per_chunk}


async def _extra_us(plugin: Any, samples: int, raws: Sequence[bytes], strategy: str) -> float:
    """The least of many runs, less what the bare chunks cost: other programs only ever add."""
    call_next = answering(raws)
    least = bare = float("inf")
    for _ in range(REPEATS):
        exchange = request(samples, strategy)
        began = process_time_ns()
        reply = await plugin.around_completion(exchange, call_next)
        async for _chunk in reply.chunks:
            pass
        await exchange.close()
        least = min(least, (process_time_ns() - began) / 1000)
        began = process_time_ns()
        for _sample in range(samples):
            async for _chunk in events(raws):
                pass
        bare = min(bare, (process_time_ns() - began) / 1000)
    return least - bare


def _fitted(rows: list[tuple[list[float], float]]) -> tuple[float, float, float]:
    """Least squares of relative errors, or the largest drawings alone would count."""
    import numpy as np

    weighed = np.array([[*row, value] for row, value in rows]) / np.array([[value] for _, value in rows])
    found, *_ = np.linalg.lstsq(weighed[:, :3], weighed[:, 3], rcond=None)
    request_us, sample_us, chunk_us = (float(value) for value in found)
    return request_us, sample_us, chunk_us


async def neighbours() -> dict[str, float]:
    """How long a chunk of another request waits for the event loop while requests with 64 samples each are served.

    The loop's turns are measured in processor time, so that other programs on the machine do not count; a chunk comes
    at any moment of a turn and waits for its end.
    """
    import aiohttp

    from predawn.plugins.testing import predawn_server
    from predawn.proxy.tasks import Tasks

    async with provider() as base_url:
        told = {
            "upstreams": [{"name": "up", "base_url": base_url, "api_key": "sk"}],
            "models": [{"name": "m", "upstream": "up"}],
            "plugins": [{"sampling": {"at_once": 64, "max_samples": 64}}],
        }
        async with predawn_server(told) as server, aiohttp.ClientSession() as session:
            crowd = Tasks().spawn(_crowd(session, f"{server.base_url}/chat/completions"), "crowd")
            await asyncio.sleep(WARM_UP_S)
            turns = await _turns_ms(MEASURED_S)
            crowd.cancel()
            await asyncio.wait([crowd])
    return {"wait_p99_ms": wait_at(turns, 0.99), "wait_p999_ms": wait_at(turns, 0.999), "longest_turn_ms": max(turns)}


@asynccontextmanager
async def provider() -> AsyncIterator[str]:
    """A provider in a process of its own; its base URL."""
    script = Path(__file__).with_name("provider.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), str(INTERVAL_MS), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.kill()
        await process.wait()


async def _crowd(session: Any, url: str) -> None:
    """One request after another with 64 samples each."""
    wish = {"strategy": "vote", "samples": 64, "min_samples": 64}
    body = {"model": "m", "messages": [{"role": "user", "content": "chunks=60"}], "predawn": {"sampling": wish}}
    while True:
        async with session.post(url, json=body) as reply:
            assert reply.status == 200, await reply.text()
            await reply.read()


async def _turns_ms(seconds: float) -> list[float]:
    """Processor time of each turn of this event loop."""
    turns: list[float] = []
    end = perf_counter() + seconds
    last = process_time_ns()
    while perf_counter() < end:
        await asyncio.sleep(0)
        now = process_time_ns()
        turns.append((now - last) / 1e6)
        last = now
    return turns


def wait_at(turns: Sequence[float], share: float) -> float:
    """The wait that this share of arrivals stays below, if they come at any moment of the turns."""
    total = sum(turns)
    low, high = 0.0, max(turns)
    for _ in range(50):
        middle = (low + high) / 2
        late = sum(turn - middle for turn in turns if turn > middle) / total
        low, high = (middle, high) if late > 1 - share else (low, middle)
    return high


async def measured(evidence: Evidence) -> None:
    print("the machinery …", flush=True)
    own = await machinery()
    print("the neighbours …", flush=True)
    near = await neighbours()
    evidence.figures = {"machinery": own, "neighbours": near}
    evidence.bars = {
        "machinery per request": Bar(own["per_request_us"], 150, "µs"),
        "machinery per sample-chunk": Bar(own["per_chunk_us"], 5, "µs"),
        "wait of another request's chunk beside 64 samples, p99": Bar(near["wait_p99_ms"], 5, "ms"),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=CHECKOUT / "results" / "bench-sampling.json")
    options = parser.parse_args()
    evidence = Evidence("sampling", {}, versions_of("predawn", "aiohttp", "msgspec"))
    evidence.settings = {"samples": SAMPLES, "chunks": CHUNKS, "repeats": REPEATS, "interval_ms": INTERVAL_MS}
    asyncio.run(measured(evidence))
    evidence.save(options.out)
    draw(evidence, options.out.with_suffix(".png"))
    print(evidence.summary())
    return 0 if evidence.all_hold else 1


if __name__ == "__main__":
    sys.exit(main())
