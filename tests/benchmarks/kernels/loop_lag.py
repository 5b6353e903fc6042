"""How late the server's event loop is while a local model answers beside it: `run.py --parts lag`.

A real `predawn serve`, idle at first, then with 16 streams that never end, read by a process of its own. All the while `/version`
is asked for at random times: it needs the event loop and next to nothing else, so its time is the loop's lag and a little more. The
server's own metric of the lag stands beside it; that looks twice a second only, and into coarse buckets.
"""

import asyncio
import contextlib
import http.client
import multiprocessing
import random
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import quantiles
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from tests.benchmarks.evidence import Bar
from tests.benchmarks.kernels.contenders import model_folder
from tests.benchmarks.kernels.figures import Figures

from predawn.proxy.local_server import LocalServer, fetch, serving

SEED = 22
STREAMS = 16
ROUND_S = 5.0
PAUSE_S = 0.02
"""Mean time between two looks."""
BEGIN_S = 60.0
BAR_MS = 20.0
LAG, TOKENS = "predawn_event_loop_lag_seconds_bucket", 'predawn_engine_tokens_total{kind="decode",upstream="local"}'
RUNNING = 'predawn_engine_requests{state="running",upstream="local"}'
_SAMPLE = re.compile(r"^(predawn_.*) (\S+)$", re.MULTILINE)


def run(rounds: int) -> Figures:
    """Idle and busy. The bar is the 99th percentile of the busy server's looks."""
    with model_folder() as (folder, name), tempfile.TemporaryDirectory() as state:
        figures = Figures(settings={"model": name, "rounds": rounds, "round_s": ROUND_S, "streams": STREAMS})
        figures.seeds["times of looks"] = SEED
        settings = {
            "upstreams": [{"name": "local", "kind": "local", "path": str(folder.resolve())}],
            "models": [{"name": "bench", "upstream": "local"}],
        }
        with serving(settings, folder=Path(state)) as server:
            _case(figures, server, "idle", rounds * ROUND_S / 4)
            with _streams(server):
                row = _case(figures, server, f"{STREAMS} streams", rounds * ROUND_S)
    figures.bars[f"event loop under {STREAMS} local streams, p99"] = Bar(row["p99_ms"], BAR_MS, "ms")
    return figures


def _case(figures: Figures, server: LocalServer, case: str, seconds: float) -> Mapping[str, Any]:
    before = samples(server)
    took_ms = _looks(server, seconds)
    after = samples(server)
    hundredths = quantiles(took_ms, n=100)
    row = {
        "case": case,
        "looks": len(took_ms),
        "median_ms": hundredths[49],
        "p99_ms": hundredths[98],
        "longest_ms": max(took_ms),
        "metric_p99_at_most_ms": 1000 * lag_at_most(before, after, 0.99),
        "tokens_per_s": (after.get(TOKENS, 0) - before.get(TOKENS, 0)) / seconds,
    }
    figures.rows.append(row)
    print(
        f"  {case}: p99 {row['p99_ms']:.2f} ms, longest {row['longest_ms']:.1f} ms; the server's metric: p99 at most "
        f"{row['metric_p99_at_most_ms']:g} ms; {row['tokens_per_s']:.0f} tokens/s",
        flush=True,
    )
    return row


def _looks(server: LocalServer, seconds: float) -> list[float]:
    """Milliseconds that `/version` took, at random times on a connection that stays open."""
    pick = random.Random(SEED)
    took_ms = []
    with contextlib.closing(http.client.HTTPConnection(urlsplit(server.base_url).netloc, timeout=30)) as connection:
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            connection.request("GET", "/version")
            answer = connection.getresponse()
            answer.read()
            took_ms.append(1000 * (time.perf_counter() - began))
            if answer.status != 200:
                raise RuntimeError(f"/version answered {answer.status}")
            time.sleep(pick.expovariate(1 / PAUSE_S))
    return took_ms


def samples(server: LocalServer) -> dict[str, float]:
    """The server's metrics by name and labels."""
    return {name: float(value) for name, value in _SAMPLE.findall(fetch(f"{server.admin_url}/metrics").decode())}


def lag_at_most(before: Mapping[str, float], after: Mapping[str, float], share: float) -> float:
    """Seconds that so large a share of the loop's lags between two readings did not exceed: a bucket's upper end."""
    counts = {
        float(re.findall(r'le="([^"]+)"', name)[0]): value - before.get(name, 0)
        for name, value in after.items()
        if name.startswith(LAG)
    }
    return min(end for end, count in counts.items() if count >= share * max(counts.values()))


@contextlib.contextmanager
def _streams(server: LocalServer) -> Iterator[None]:
    """So many streams at a time, until the block ends."""
    readers = multiprocessing.get_context("spawn").Process(target=_read_for_ever, args=(server.base_url,), daemon=True)
    readers.start()
    try:
        give_up_at = time.monotonic() + BEGIN_S
        while samples(server).get(RUNNING, 0) < STREAMS:
            if time.monotonic() > give_up_at or not readers.is_alive():
                raise RuntimeError(f"the streams did not begin:\n{server.child.tail()}")
            time.sleep(0.1)
        yield
    finally:
        readers.terminate()
        readers.join()


def _read_for_ever(base_url: str) -> None:
    asyncio.run(_read_all(base_url))


async def _read_all(base_url: str) -> None:
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session,
        asyncio.TaskGroup() as group,
    ):
        for number in range(STREAMS):
            group.create_task(_read(session, base_url, number))


async def _read(session: aiohttp.ClientSession, base_url: str, number: int) -> None:
    """One stream after the other, each as long as the context allows."""
    messages = [{"role": "user", "content": f"Ann has {number} apples. Bob has 4 more than Ann."}]
    body = {"model": "bench", "messages": messages, "stream": True, "ignore_eos": True}
    while True:
        async with session.post(f"{base_url}/chat/completions", json=body) as answer:
            answer.raise_for_status()
            async for _ in answer.content.iter_any():
                pass
