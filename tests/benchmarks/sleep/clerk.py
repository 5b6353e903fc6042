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
_NAME = re.compile(r"document (\d+)")


@dataclass(slots=True)
class Call:
    """One request, and whether its answer went out to the end."""

    digest: str
    at: float
    whole: bool = False


def answer(said: str) -> str:
    """What the clerk says to the last message of a conversation."""
    name = found[1] if (found := _NAME.search(said)) else "?"
    if "Write better notes." in said:
        known = len(_FACT.findall(said))
        facts = [f"- Fact {number} of {name} is {_number(name, number)}" for number in range(1, known + 2)]
        return "<notes>\n" + "\n".join(facts) + "\n</notes>"
    if "Judge every claim" in said:
        claims = said.partition("<claims>")[2].partition("</claims>")[0]
        return "\n".join(f"{number}: right" for number in range(1, len(_CLAIM.findall(claims)) + 1))
    if "questions that are most likely" in said:
        return "\n".join(f"Q: What is fact {number} of {name}?" for number in range(1, QUESTIONS + 1))
    asked = re.findall(r"What is fact (\d+) of (\d+)\?", said)
    return f"It is {_number(asked[-1][1], int(asked[-1][0]))}." if asked else "Yes."


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
        call = Call(hashlib.sha256(json.dumps(messages).encode()).hexdigest()[:16], time.monotonic())
        self.calls.append(call)
        await asyncio.sleep(self._first_byte_s)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        words = re.findall(r"\s*\S+", answer(messages[-1]["content"]))
        for word in words:
            await self._send(response, {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
            await asyncio.sleep(self._gap_s)
        await self._send(response, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        prompt = sum(len(message["content"]) for message in messages) // 4
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
