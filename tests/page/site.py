"""A server with something to show, and a load for it."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from predawn.plugins.testing import predawn_server
from predawn.plugins.testing.server import RunningServer

WRONG = "Let us see. First we add: 2 + 2 = 5. Then we double it: 4 * 2 = 8. So all in all the answer is 8."
UPSTREAMS = [
    {"name": "vllm", "kind": "scripted", "script": {"chunks": 40, "first_byte_ms": 150, "interval_ms": 25}},
    {"name": "slow", "kind": "scripted", "script": {"chunks": 70, "first_byte_ms": 400, "interval_ms": 40}},
    {"name": "quick", "kind": "scripted", "script": {"chunks": 8, "first_byte_ms": 20, "interval_ms": 20}},
    {"name": "shaky", "kind": "scripted", "script": {"error_rate": 0.6, "chunks": 20, "interval_ms": 20}},
    {"name": "wrong", "kind": "scripted", "script": {"text": WRONG, "first_byte_ms": 90, "interval_ms": 60}},
]
MODELS = [
    {"name": "qwen3-8b", "upstream": "vllm"},
    {"name": "llama-70b", "upstream": "slow"},
    {"name": "quick", "upstream": "quick"},
    {"name": "shaky", "upstream": "shaky"},
    {"name": "wrong", "upstream": "wrong"},
]
PLUGINS = [
    {"sleep": {}},
    {"budget": {}},
    {"sampling": {}},
    {"verify": {"verifiers": ["arithmetic"]}},
    {"record": {}},
]
HANDBOOK = "A tram ticket costs 3 crowns, a bus ticket 2 crowns, and both are valid for 75 minutes. "


@dataclass
class Site:
    """A running server and a client for it."""

    server: RunningServer
    http: aiohttp.ClientSession
    asked: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"{self.server.admin_url}/"

    async def ask(self, model: str = "quick", content: str = "hello", **body: Any) -> str:
        """Ask as a client; returns the exchange's id."""
        asked = {"model": model, "stream": True, "messages": [{"role": "user", "content": content}], **body}
        self.asked += 1
        async with self.http.post(f"{self.server.base_url}/chat/completions", json=asked) as reply:
            await reply.read()
            return reply.headers["x-request-id"]

    async def register(self, ident: str, text: str = HANDBOOK * 30) -> None:
        made = {"id": ident, "messages": [{"role": "system", "content": text}]}
        async with self.http.post(f"{self.server.base_url}/contexts", json=made) as reply:
            assert reply.status == 201, await reply.text()

    @asynccontextmanager
    async def load(
        self, per_s: float, models: list[str], *, samples: float = 0.0, about: str = ""
    ) -> AsyncIterator[None]:
        """Requests at random times at this rate, whatever becomes of those before; some with samples, half `about`."""
        chance = random.Random(7)
        running = asyncio.get_running_loop().create_task(
            self._ask_on(per_s, itertools.cycle(models), chance, samples, about)
        )
        try:
            yield
        finally:
            running.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(running, *self._tasks, return_exceptions=True)

    async def _ask_on(self, per_s: float, models: Any, chance: random.Random, samples: float, about: str) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due += chance.expovariate(per_s)
            await asyncio.sleep(max(due - loop.time(), 0))
            more = {"predawn": {"sampling": {"strategy": "vote", "samples": 5}}} if chance.random() < samples else {}
            content = f"What is {chance.randint(2, 99)} * {chance.randint(2, 99)}?"
            if about and chance.random() < 0.5:
                system, user = {"role": "system", "content": about}, {"role": "user", "content": content}
                more = {**more, "messages": [system, user]}
            task = loop.create_task(self._one(next(models), content, more))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _one(self, model: str, content: str, more: Mapping[str, Any]) -> None:
        await self.ask(model, content, **more)


@asynccontextmanager
async def site(settings: Mapping[str, Any]) -> AsyncIterator[Site]:
    given = {"upstreams": UPSTREAMS, "models": MODELS, "plugins": PLUGINS, **settings}
    connector = aiohttp.TCPConnector(limit=0)
    async with predawn_server(given) as server, aiohttp.ClientSession(connector=connector) as http:
        yield Site(server, http)
