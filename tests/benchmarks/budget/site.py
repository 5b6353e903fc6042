"""`predawn serve` with `budget` and `sampling` as a process of its own, and a client of it."""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from tests.benchmarks.processes import free_port, start, wait_until_listening
from tests.benchmarks.sleep.site import predawn

START_S = 120.0
PATIENCE_S = 600.0
BUSY = frozenset({429, 503})
PAUSE_S = 0.5
KEY = "OPENAI_API_KEY"
MODEL = "model"
"""The alias under which the model is served."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """The model that is measured: the bundled one, another checkpoint, or an endpoint."""

    base_url: str | None = None
    model: str | None = None
    reasoning: str = "reasoning_effort"
    weights: Path | None = None
    threads: int = 1

    def settings(self, *plugins: Any) -> dict[str, Any]:
        """A server's settings with these plugins."""
        upstream: dict[str, Any] = {"name": "up", "kind": "local", "engine": {"threads": self.threads}}
        alias: dict[str, Any] = {"name": MODEL, "upstream": "up", "reasoning": self.reasoning}
        if self.weights is not None:
            upstream["path"] = str(self.weights)
        if self.base_url is not None:
            upstream = {"name": "up", "base_url": self.base_url}
            upstream["api_key"] = f"${{{KEY}}}" if os.environ.get(KEY) else "none"
            alias["model"] = self.model
        return {"upstreams": [upstream], "models": [alias], "plugins": list(plugins)}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, and what it cost."""

    exchange_id: str
    text: str
    tokens: int
    """Of output, thrown away or not."""
    prompt_tokens: int
    further_prompts: int
    """Prompt tokens of all calls but the first."""
    samples: int
    tier: str
    difficulty: float | None
    seconds: float


class Client:
    """Asks one server over HTTP; waits where it is busy."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session = session
        self._base = f"http://127.0.0.1:{port}/v1"

    async def ask(self, question: str, headers: Mapping[str, str] | None = None, **members: Any) -> Answer:
        body = {"model": MODEL, "messages": [{"role": "user", "content": question}], **members}
        began = time.perf_counter()
        while True:
            async with self._session.post(f"{self._base}/chat/completions", json=body, headers=headers) as response:
                answer = await response.json()
                if response.status == 200:
                    return _read(answer, response.headers, time.perf_counter() - began)
                if response.status not in BUSY or time.perf_counter() - began > PATIENCE_S:
                    raise RuntimeError(f"{response.status} {json.dumps(answer)[:300]}")
            await asyncio.sleep(PAUSE_S)
            began = time.perf_counter()

    async def tell(self, exchange_id: str, *, correct: bool) -> None:
        """Feedback, as a user gives it."""
        url = f"{self._base}/exchanges/{exchange_id}/feedback"
        async with self._session.post(url, json={"correct": correct}) as response:
            if response.status != 200:
                raise RuntimeError(f"feedback: {response.status} {(await response.text())[:300]}")


def _read(answer: Mapping[str, Any], headers: Mapping[str, str], seconds: float) -> Answer:
    usage = answer.get("usage") or {}
    more = usage.get("predawn") or {}
    granted = headers.get("x-predawn-budget", "").partition(";")[0].removeprefix("tier=")
    difficulty = headers.get("x-predawn-difficulty")
    return Answer(
        headers.get("x-request-id", ""),
        answer["choices"][0]["message"].get("content") or "",
        usage.get("completion_tokens", 0) + more.get("discarded_tokens", 0) + more.get("verify_tokens", 0),
        usage.get("prompt_tokens", 0),
        more.get("discarded_prompt_tokens", 0),
        more.get("samples", 1),
        granted,
        float(difficulty) if difficulty else None,
        seconds,
    )


@contextlib.asynccontextmanager
async def serving(folder: Path, settings: Mapping[str, Any]) -> AsyncIterator[Client]:
    """Serve; the state stays in `folder`, so that a server that is started again knows what it had learnt."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    whole = {
        **settings,
        "server": {"admin_port": free_port(), "drain_grace_s": 0, "log": {"level": "warning"}},
        "state": str(folder / "state.db"),
    }
    config = folder / "predawn.yaml"
    config.write_text(json.dumps(whole, indent=1))  # JSON is YAML
    command = predawn("serve", "--config", str(config), "--host", "127.0.0.1", "--port", str(port))
    server = start(command, core=None, log=folder / "server.log")
    try:
        await asyncio.to_thread(wait_until_listening, port, server, START_S)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_read=PATIENCE_S)) as session:
            yield Client(session, port)
    finally:
        await asyncio.to_thread(server.stop, 20.0)
