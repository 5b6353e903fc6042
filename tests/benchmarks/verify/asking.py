"""`predawn serve` with sampling and verification as a process of its own, and a client that reads its books as well."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from tests.benchmarks.processes import free_port, start, wait_until_listening
from tests.benchmarks.sleep.site import START_S, predawn

RECORDED_S = 20.0
"""How long an exchange may take to be on the record."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back and when, and what all calls took that were made for it, by the server's own record."""

    text: str
    thoughts: str
    finish: str
    first_s: float
    """Until the first piece of text, thoughts included."""
    seconds: float
    """Until the answer was complete."""
    calls: int = 1
    output_tokens: int = 0
    """Everything that was generated, what was thrown away included."""
    prompt_tokens: int = 0
    """Of all calls."""
    flags: list[list[Any]] = field(default_factory=list[list[Any]])
    """Violations: where, at which character, and what was done."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Answer":
        return cls(**values)


class Client:
    """Asks one server over HTTP, and looks up what the answer cost."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session = session
        self._base = f"http://127.0.0.1:{port}/v1"

    async def wake(self, body: Mapping[str, Any]) -> None:
        """Ask until the model answers. Raises RuntimeError if it does not come up."""
        deadline = time.monotonic() + START_S
        while True:
            async with self._session.post(f"{self._base}/chat/completions", json=body) as response:
                said = await response.text()
                if response.status == 200:
                    return
            if response.status != 503 or time.monotonic() > deadline:
                raise RuntimeError(f"the model does not answer: {response.status} {said[:300]}")
            await asyncio.sleep(0.5)

    async def ask(self, body: Mapping[str, Any], *, stream: bool) -> Answer:
        """A chat completion, streamed or whole, and its record."""
        sent = {**body, "stream": True, "stream_options": {"include_usage": True}} if stream else body
        heard = Heard()
        async with self._session.post(f"{self._base}/chat/completions", json=sent) as response:
            if response.status >= 400:
                raise RuntimeError(f"{response.status} {(await response.text())[:300]}")
            ident = response.headers["x-request-id"]
            if stream:
                async for line in response.content:
                    if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
                        heard.take(json.loads(line[6:]), "delta")
            else:
                heard.take(await response.json(), "message")
        return heard.answer(booked(await self._record(ident)))

    async def _record(self, ident: str) -> Any:
        deadline = time.monotonic() + RECORDED_S
        while True:
            async with self._session.get(f"{self._base}/exchanges/{ident}") as response:
                if response.status == 200:
                    return await response.json()
            if response.status != 404 or time.monotonic() > deadline:
                raise RuntimeError(f"no record of {ident}: {response.status}")
            await asyncio.sleep(0.05)


class Heard:
    """What one answer said so far."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._first_s = self._last_s = 0.0
        self._said: dict[str, list[str]] = {"content": [], "reasoning_content": []}
        self._finish = ""

    def take(self, data: Mapping[str, Any], member: str) -> None:
        """Raises RuntimeError for an error in place of a chunk."""
        if "error" in data:
            raise RuntimeError(str(data["error"])[:300])
        self._last_s = time.perf_counter() - self._began
        for choice in data.get("choices") or ():
            self._finish = choice.get("finish_reason") or self._finish
            for name, pieces in self._said.items():
                if piece := (choice.get(member) or {}).get(name):
                    self._first_s = self._first_s or self._last_s
                    pieces.append(piece)

    def answer(self, costs: Mapping[str, Any]) -> Answer:
        content, thoughts = ("".join(pieces) for pieces in self._said.values())
        return Answer(content, thoughts, self._finish, self._first_s or self._last_s, self._last_s, **costs)


def booked(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says of tokens, calls and violations."""
    ledger = record["ledger"]
    flags = [
        [told["channel"], told["at"], told["action"]]
        for decision in record["decisions"]
        if decision["by"] == "verify" and "at" in (told := decision["detail"])
    ]
    return {
        "calls": len(record["calls"]),
        "output_tokens": ledger["output"] + ledger["discarded"] + ledger["verify"],
        "prompt_tokens": ledger["prompt"] + ledger["discarded_prompt"] + ledger["verify_prompt"],
        "flags": flags,
    }


@contextlib.asynccontextmanager
async def serving(folder: Path, settings: Mapping[str, Any], model: str) -> AsyncIterator[Client]:
    """Serve until the block ends. Raises RuntimeError with the server's last words if it does not start."""
    folder.mkdir(parents=True, exist_ok=True)
    port, admin_port = free_port(), free_port()
    server = {"admin_port": admin_port, "drain_grace_s": 0, "log": {"level": "warning"}}
    config = folder / "predawn.yaml"
    config.write_text(json.dumps({**settings, "server": server, "state": str(folder / "state.db")}, indent=1))
    command = predawn("serve", "--config", str(config), "--host", "127.0.0.1", "--port", str(port))
    program = start(command, core=None, log=folder / "server.log")
    try:
        await asyncio.to_thread(wait_until_listening, port, program, START_S)
        timeout = aiohttp.ClientTimeout(total=None, sock_read=600)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
            client = Client(session, port)
            await client.wake({"model": model, "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 1})
            yield client
    finally:
        await asyncio.to_thread(program.stop, 20.0)
