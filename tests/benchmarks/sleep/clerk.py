"""A model for the crash test: it answers what sleep asks by rule, always the same, and writes down every call."""

import asyncio
import contextlib
import hashlib
import json
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web

QUESTIONS = 3
"""Foreseen of each context."""
_FACT = re.compile(r"^- Fact \d+ of (.+?) is ", re.MULTILINE)
_CLAIM = re.compile(r"^\d+: ", re.MULTILINE)
_ASKED = re.compile(r"What is fact (\d+) of \d+\?")
_NAME = re.compile(r"document (\d+)")


@dataclass(slots=True)
class Call:
    """One request, and whether its answer went out to the end."""

    digest: str
    step: str
    """The step of sleep's that it is part of: both calls that answer a foreseen question belong to one."""
    at: float
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a conversation wants to be told: the document it is about, what for, and the fact in question."""

    name: str
    kind: str
    number: int = 0


def read(said: str) -> Wanted:
    """The words of sleep's prompts, understood; `said` is a whole conversation."""
    name = found[1] if (found := _NAME.search(said)) else "?"
    if "Write better notes." in said:
        return Wanted(name, "pass", len(_FACT.findall(said)) + 1)
    if "Judge every claim" in said:
        return Wanted(name, "check")
    if "questions that are most likely" in said:
        return Wanted(name, "questions")
    asked = _ASKED.findall(said)
    return Wanted(name, "answer", int(asked[-1])) if asked else Wanted(name, "other")


def answer(said: str) -> str:
    """What the clerk says."""
    wanted = read(said)
    name, number = wanted.name, wanted.number
    if wanted.kind == "pass":
        facts = [f"- Fact {known} of {name} is {_number(name, known)}" for known in range(1, number + 1)]
        return "<notes>\n" + "\n".join(facts) + "\n</notes>"
    if wanted.kind == "check":
        claims = said.partition("<claims>")[2].partition("</claims>")[0]
        return "\n".join(f"{number}: right" for number in range(1, len(_CLAIM.findall(claims)) + 1))
    if wanted.kind == "questions":
        return "\n".join(f"Q: What is fact {number} of {name}?" for number in range(1, QUESTIONS + 1))
    return f"It is {_number(name, number)}." if wanted.kind == "answer" else "Yes."


def _number(name: str, number: int) -> int:
    return int(hashlib.sha256(f"{name}/{number}".encode()).hexdigest()[:4], 16)


class Clerk:
    """An upstream on a port."""

    def __init__(self, first_byte_s: float, gap_s: float) -> None:
        self._first_byte_s, self._gap_s = first_byte_s, gap_s
        self.calls: list[Call] = []
        self.base_url = ""

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        messages: list[dict[str, Any]] = body["messages"]
        said = "\n".join(message["content"] for message in messages)
        wanted = read(said)
        step = f"{wanted.name} {wanted.kind} {wanted.number}"
        call = Call(hashlib.sha256(json.dumps(messages).encode()).hexdigest()[:16], step, time.monotonic())
        self.calls.append(call)
        await asyncio.sleep(self._first_byte_s)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        words = re.findall(r"\s*\S+", answer(said))
        for word in words:
            await self._send(response, {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
            await asyncio.sleep(self._gap_s)
        await self._send(response, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        prompt = len(said) // 4
        usage = {"prompt_tokens": prompt, "completion_tokens": len(words), "total_tokens": prompt + len(words)}
        await self._send(response, {"choices": [], "usage": usage})
        await response.write(b"data: [DONE]\n\n")
        call.whole = True
        return response

    async def _send(self, response: web.StreamResponse, chunk: dict[str, Any]) -> None:
        await response.write(b"data: " + json.dumps({"object": "chat.completion.chunk", **chunk}).encode() + b"\n\n")


@contextlib.asynccontextmanager
async def clerk(first_byte_s: float = 0.02, gap_s: float = 0.001) -> AsyncIterator[Clerk]:
    """A clerk that listens on loopback."""
    found = Clerk(first_byte_s, gap_s)
    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/v1/chat/completions", found._chat)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        found.base_url = f"http://127.0.0.1:{port}/v1"
        yield found
    finally:
        await runner.cleanup()
