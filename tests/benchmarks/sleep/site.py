"""`predawn serve` with the sleep plugin as a process of its own, and a client of it."""

import asyncio
import contextlib
import json
import re
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from tests.benchmarks.processes import Running, free_port, start, wait_until_listening
from tests.benchmarks.sleep.cases import Case
from tests.benchmarks.sleep.curves import Tokens

OFF = {"x-predawn-sleep": "off"}
START_S = 120.0
"""A local engine compiles nothing, but loads torch on a machine that may be busy."""
UNDER_WAY = frozenset({"new", "queued", "sleeping", "checking"})
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, when, and what it took."""

    text: str
    tokens: Tokens
    first_s: float
    """Until the first piece of text, thoughts included."""
    seconds: float
    """Until the answer was complete."""

    def as_json(self) -> list[Any]:
        tokens = self.tokens
        return [self.text, tokens.prompt, tokens.cached, tokens.output, round(self.first_s, 5), round(self.seconds, 5)]

    @classmethod
    def of(cls, values: Sequence[Any]) -> "Answer":
        text, prompt, cached, output, first_s, seconds = values
        return cls(text, Tokens(prompt, cached, output), first_s, seconds)


class Client:
    """Asks one server over HTTP."""

    def __init__(self, session: aiohttp.ClientSession, port: int, admin_port: int) -> None:
        self._session = session
        self._base = f"http://127.0.0.1:{port}/v1"
        self._metrics = f"http://127.0.0.1:{admin_port}/metrics"

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        async with self._session.request(method, self._base + path, json=body) as response:
            answer = await response.json()
            if response.status >= 400:
                raise RuntimeError(f"{method} {path}: {response.status} {json.dumps(answer)[:300]}")
            return answer

    async def ask(self, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Answer:
        """A streamed chat completion."""
        sent = {**body, "stream": True, "stream_options": {"include_usage": True}}
        began = time.perf_counter()
        first_s = 0.0
        text: list[str] = []
        usage: dict[str, Any] = {}
        async with self._session.post(f"{self._base}/chat/completions", json=sent, headers=headers) as response:
            if response.status >= 400:
                raise RuntimeError(f"{response.status} {(await response.text())[:300]}")
            async for line in response.content:
                if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                    continue
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    raise RuntimeError(str(chunk["error"])[:300])
                usage = chunk.get("usage") or usage
                for choice in chunk.get("choices") or ():
                    delta = choice.get("delta") or {}
                    said = delta.get("content") or ""
                    if not first_s and (said or delta.get("reasoning_content") or delta.get("reasoning")):
                        first_s = time.perf_counter() - began
                    text.append(said)
        seconds = time.perf_counter() - began
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        tokens = Tokens(usage.get("prompt_tokens", 0), cached, usage.get("completion_tokens", 0))
        return Answer("".join(text), tokens, first_s or seconds, seconds)

    async def states(self) -> dict[str, str]:
        """The state of every context by its id."""
        found: dict[str, str] = {}
        before = ""
        while True:
            page = await self.call("GET", f"/contexts?limit=100{before}")
            found |= {context["id"]: context["state"] for context in page["data"]}
            if not page["has_more"]:
                return found
            before = f"&before={page['last_id']}"

    async def sleep_on(self, cases: Sequence[Case], model: str, show: Callable[[int], None], patience_s: float) -> None:
        """Register the cases that are not known, and wait until nobody sleeps on any of them any more.

        Raises RuntimeError when nothing changed for `patience_s`.
        """
        known = await self.states()
        for case in cases:
            if case.id not in known:
                await self.call("POST", "/contexts", {"id": case.id, "text": case.context, "model": model})
        wanted = {case.id for case in cases}
        last, changed_at = -1, time.monotonic()
        while True:
            states = await self.states()
            waiting = sum(states[ident] in UNDER_WAY for ident in wanted)
            show(len(wanted) - waiting)
            if waiting == 0 and await self.active() == 0:
                return
            if waiting != last:
                last, changed_at = waiting, time.monotonic()
            elif time.monotonic() - changed_at > patience_s:
                raise RuntimeError(f"{waiting} contexts are still waiting for sleep after {patience_s:.0f} s")
            await asyncio.sleep(0.5)

    async def active(self) -> float:
        """Orders that run: what follows a check goes on after a context is said to be asleep. A second old at most."""
        return await self.metric("predawn_sleep_backlog_jobs", kind="active")

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        async with self._session.get(self._metrics) as response:
            page = await response.text()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(
            float(value)
            for found, marks, value in _SAMPLE.findall(page)
            if found == name and all(mark in marks for mark in wanted)
        )


@dataclass(frozen=True, slots=True)
class Site:
    """A running server with its client."""

    server: Running
    client: Client
    database: Path

    def kill(self) -> None:
        """kill -9, without a word."""
        self.server.process.kill()
        self.server.process.wait()


def predawn(*words: str) -> list[str]:
    return [str(Path(sys.executable).with_name("predawn")), *words]


@contextlib.asynccontextmanager
async def serving(folder: Path, settings: Mapping[str, Any], *, core: int | None = None) -> AsyncIterator[Site]:
    """Serve; the state stays in `folder`. Raises RuntimeError with the server's last words if it does not start."""
    folder.mkdir(parents=True, exist_ok=True)
    port, admin_port = free_port(), free_port()
    whole = {
        **settings,
        "server": {"admin_port": admin_port, "drain_grace_s": 0, "log": {"level": "warning"}},
        "state": str(folder / "state.db"),
    }
    config = folder / "predawn.yaml"
    config.write_text(json.dumps(whole, indent=1))  # JSON is YAML
    command = predawn("serve", "--config", str(config), "--host", "127.0.0.1", "--port", str(port))
    server = start(command, core=core, log=folder / "server.log")
    try:
        await asyncio.to_thread(wait_until_listening, port, server, START_S)
        timeout = aiohttp.ClientTimeout(total=None, sock_read=600)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            yield Site(server, Client(session, port, admin_port), folder / "state.db")
    finally:
        await asyncio.to_thread(server.stop, 20.0)


def tokens_asleep(database: Path) -> dict[str, Tokens]:
    """What sleep has cost so far by what it was for, from the server's own records."""
    found: dict[str, Tokens] = {}
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        query = "SELECT record, prompt, cached_prompt, output FROM exchanges WHERE id LIKE 'sleep\\_%' ESCAPE '\\'"
        for record, prompt, cached, output in connection.execute(query):
            purpose = _purpose(json.loads(record))
            found[purpose] = found.get(purpose, Tokens()) + Tokens(prompt, cached, output)
    return found


def _purpose(record: Mapping[str, Any]) -> str:
    """What a call asleep was for: the first thing that the plugin says of it."""
    return next((str(one["what"]) for one in record.get("decisions") or () if one.get("by") == "sleep"), "unknown")
