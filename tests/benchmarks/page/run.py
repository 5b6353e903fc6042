"""What the live page costs, and how it feels: `python tests/benchmarks/page/run.py [OUT.json]`.

- The server: CPU of a `predawn serve` process at 200 requests per second with one viewer, less that without, in turns.
- The parts: microseconds of one turn with all it may hold, of one state, and of one exchange's end while watched and not.
- The browser: first paint, frames per second and the longest gap at that rate, in a headless Chromium where there is one.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter, process_time

import aiohttp
import msgspec
from prometheus_client import CollectorRegistry
from tests.acceptance.process import serving
from tests.benchmarks.evidence import Bar, Evidence, versions_of
from tests.benchmarks.processes import cpu_us, tree
from tests.page.browser import browser, chromium
from tests.page.checks import frames

from predawn.proxy.accounting import Account
from predawn.proxy.exchange import Call, Exchange, Verdict
from predawn.proxy.live.feed import MOST_NOTABLE, MOST_PLAIN, MOST_RUNNING, MOST_TROUBLED, Feed
from predawn.proxy.live.glance import LONGEST_ID, LONGEST_WORD, MOST_CALLS, MOST_DECISIONS, MOST_MARKS
from predawn.proxy.live.totals import Totals
from predawn.proxy.metrics import Metrics

RATE, ROUNDS, SPAN_S, SETTLE_S, SEED = 200, 12, 5.0, 1.0, 7
SETTINGS = {
    "server": {"port": 0, "admin_port": 0},
    "upstreams": [{"name": "up", "kind": "scripted", "script": {"chunks": 8, "first_byte_ms": 20, "interval_ms": 20}}],
    "models": [{"name": "m", "upstream": "up"}],
    "plugins": [],
}
BODY = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "What is 6 times 7?"}]}


class Load:
    """Requests at random times at a fixed rate."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url
        self._tasks: set[asyncio.Task[None]] = set()
        self.done = 0
        self.failed = 0

    async def run(self) -> None:
        chance, loop = random.Random(SEED), asyncio.get_running_loop()
        due = loop.time()
        while True:
            due += chance.expovariate(RATE)
            await asyncio.sleep(max(due - loop.time(), 0))
            task = loop.create_task(self._one())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def stop(self, running: asyncio.Task[None]) -> None:
        running.cancel()
        await asyncio.wait([running])
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _one(self) -> None:
        try:
            async with self._http.post(self._url, json=BODY) as reply:
                await reply.read()
                self.failed += reply.status != 200
        except aiohttp.ClientError:
            self.failed += 1
        self.done += 1


@asynccontextmanager
async def loaded(folder: Path) -> AsyncIterator[tuple[str, list[int], Load, aiohttp.ClientSession]]:
    """The server under load: its admin URL and its processes."""
    async with (
        serving(folder, SETTINGS) as server,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
    ):
        port, admin = server.ports
        load = Load(http, f"http://127.0.0.1:{port}/v1/chat/completions")
        running = asyncio.get_running_loop().create_task(load.run())
        try:
            yield f"http://127.0.0.1:{admin}", tree(server.process.pid), load, http
        finally:
            await load.stop(running)


async def server_cost(folder: Path) -> dict[str, object]:
    """Share of a core without a viewer and with one, span by span."""
    shares: dict[str, list[float]] = {"none": [], "one": []}
    async with loaded(folder) as (admin, pids, load, http):
        await asyncio.sleep(3)
        began, done = perf_counter(), load.done
        for round_ in range(ROUNDS):
            for who in ("none", "one") if round_ % 2 else ("one", "none"):
                viewer = asyncio.get_running_loop().create_task(_view(http, admin)) if who == "one" else None
                await asyncio.sleep(SETTLE_S)
                cpu, at = cpu_us(pids), perf_counter()
                await asyncio.sleep(SPAN_S)
                shares[who].append((cpu_us(pids) - cpu) / (perf_counter() - at) / 1e6)
                if viewer is not None:
                    assert not viewer.done(), viewer
                    viewer.cancel()
                    await asyncio.wait([viewer])
        rate = (load.done - done) / (perf_counter() - began)
        failed = load.failed
    pairs = [one - none for one, none in zip(shares["one"], shares["none"], strict=True)]
    return {
        "requests_per_s": rate,
        "failed": failed,
        "share_without": statistics.median(shares["none"]),
        "share_with_one_viewer": statistics.median(shares["one"]),
        "added_share": statistics.median(pairs),
        "added_share_each_round": pairs,
    }


async def _view(http: aiohttp.ClientSession, admin: str) -> None:
    async with http.get(f"{admin}/live/feed", headers={"x-predawn-live": "1"}) as reply:
        assert reply.status == 200
        async for _ in reply.content.iter_any():
            pass


class _Talk:
    """A conversation as the feed sees it, with as much to tell as is ever told."""

    def __init__(self, feed: Feed, outcome: str) -> None:
        word, ident = "w" * LONGEST_WORD, "i" * LONGEST_ID
        self.exchange = exchange = Exchange(b"{}", id=ident, tenant=ident, model=word, started=perf_counter())
        self.account = Account()
        exchange.upstream = word
        exchange.outcome = outcome  # type: ignore[assignment]
        exchange.verdicts += [Verdict("violation", at_s=0.1)] * MOST_MARKS
        exchange.ledger.calls += [Call(word, word, "sample", outcome=word) for _ in range(MOST_CALLS)]
        for _ in range(MOST_DECISIONS):
            exchange.decide(word, word)
        feed.is_watched = True

    @property
    def seen(self) -> tuple[Exchange, Account]:
        return self.exchange, self.account


def parts() -> dict[str, float]:
    """CPU of each part, in microseconds, where every exchange is as long to tell as may be, and 50 models are served."""
    feed, totals = Feed(), Totals(_metrics(models=50))
    running = {_Talk(feed, "ok") for _ in range(200)}
    over = [_Talk(feed, outcome) for outcome in ("ok", "upstream_error") for _ in range(25)]
    turns, states, bytes_ = 400, 400, 0
    began = process_time()
    for _ in range(turns):
        for talk in over:
            feed.ended(talk, talk.exchange, talk.account)
        bytes_ = len(msgspec.json.encode(feed.turn([running])))
    whole = (process_time() - began) / turns
    began = process_time()
    for _ in range(states):
        msgspec.json.encode(totals.read())
    state = (process_time() - began) / states
    return {
        "quarter_of_a_second_at_200_per_s_us": whole * 1e6,
        "state_us": state * 1e6,
        "share_of_a_core": 4 * whole + state,
        "bytes_of_a_turn": bytes_,
        "shown_at_most": MOST_RUNNING + MOST_PLAIN + MOST_NOTABLE + MOST_TROUBLED,
    }


def _metrics(models: int) -> Metrics:
    """What a server has counted that serves so many models, streamed and not, with some errors."""
    metrics = Metrics(CollectorRegistry())
    for model in (f"model-{number}" for number in range(models)):
        for code in ("200", "400", "429", "502"):
            metrics.requests.of("chat", model, "up", code, "true").inc()
        for kind in ("input", "output"):
            metrics.tokens.of(model, "up", kind, "serve").inc()
        for stream in ("true", "false"):
            metrics.request_duration.of("chat", model, "up", stream).observe(0.5)
    return metrics


async def in_browser(folder: Path, program: str) -> dict[str, object]:
    """First paint of a fresh profile, then frames at the rate; on a machine that also makes the load."""
    paints, seen = [], {}
    async with loaded(folder) as (admin, _, _, _), browser(program) as chrome:
        for _ in range(5):
            async with chrome.tab() as tab:
                await tab.open(f"{admin}/")
                await tab.until(
                    "document.getElementById('connection').dataset.state === 'live' && paints['first-contentful-paint']"
                )
                paints.append(float(await tab.js("paints['first-contentful-paint']")))
        async with chrome.tab() as tab:
            await tab.open(f"{admin}/")
            await asyncio.sleep(12)
            seen = await tab.js(frames(8))
    return {"first_paint_ms": paints, **seen}


async def measure() -> Evidence:
    found = Evidence("page", {"load": SEED}, versions_of("predawn", "aiohttp", "uvloop", "msgspec"))
    found.settings = {"requests_per_s": RATE, "rounds": ROUNDS, "span_s": SPAN_S}
    found.figures["parts"] = parts()
    with tempfile.TemporaryDirectory(prefix="predawn-page-") as folder:
        found.figures["server"] = cost = await server_cost(Path(folder))
        program = chromium()
        seen = await in_browser(Path(folder), program) if program is not None else None
    why = "" if seen is not None else "needs Chromium"
    found.figures["browser"] = seen
    found.bars = {
        "server_share": Bar(cost["added_share"], 0.03, "of a core at 200 requests per second"),
        "parts_share": Bar(
            found.figures["parts"]["share_of_a_core"], 0.03, "of a core, every exchange as long as may be, 50 models"
        ),
        "first_paint_ms": Bar(statistics.median(seen["first_paint_ms"]) if seen else None, 1000, "ms", why),
        "frames_per_s": Bar(seen["fps"] if seen else None, 30, "frames per second", why, at_least=True),
    }
    found.notes.append(f"server, load and browser shared {os.cpu_count()} cores")
    return found


def main(out: str = "results/bench-page.json") -> int:
    found = asyncio.run(measure())
    found.save(Path(out))
    print(found.summary())
    return 0 if found.all_hold else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
