"""Clients of a soak: an open loop of chats, streamed and whole, some of which hang up early.

Run as a program so that it can be pinned to a core of its own: it prints one JSON object of what the clients saw.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp

CONTENT = b'"delta":{"content":'
TIMEOUT = aiohttp.ClientTimeout(total=30)


@dataclass(slots=True)
class Seen:
    """What a group of clients saw."""

    asked: int = 0
    complete: int = 0
    tokens: int = 0
    cut: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        return {
            "asked": self.asked,
            "complete": self.complete,
            "tokens": self.tokens,
            "cut": self.cut,
            "failures": dict(self.failures),
        }


@dataclass(frozen=True, slots=True)
class Chat:
    """One request and how its client behaves: `cut` hangs up after the first bytes, or soon after asking."""

    stream: bool
    usage: bool
    cut: bool

    def body(self, number: int) -> bytes:
        request: dict[str, Any] = {
            "model": "soak",
            "messages": [
                {"role": "system", "content": "Answer briefly. " * 60},
                {"role": "user", "content": f"question {number}"},
            ],
            "stream": self.stream,
        }
        if self.stream and self.usage:
            request["stream_options"] = {"include_usage": True}
        return json.dumps(request).encode()


async def ask(session: aiohttp.ClientSession, url: str, chat: Chat, number: int, patience_s: float, seen: Seen) -> None:
    """Asks once and counts what came of it."""
    seen.asked += 1
    try:
        if chat.cut and not chat.stream:
            await _leave_soon(session, url, chat.body(number), patience_s)
            seen.cut += 1
            return
        async with session.post(url, data=chat.body(number), headers={"content-type": "application/json"}) as answer:
            if answer.status != 200:
                seen.failures[f"status {answer.status}"] += 1
                await answer.read()
                return
            if chat.cut:
                await answer.content.readany()
                seen.cut += 1
                answer.close()
                return
            _count(await answer.read(), stream=chat.stream, seen=seen)
    except (aiohttp.ClientError, TimeoutError) as problem:
        seen.failures[type(problem).__name__] += 1


async def _leave_soon(session: aiohttp.ClientSession, url: str, body: bytes, patience_s: float) -> None:
    """Hangs up while the answer is being made: cancelling the call closes its connection."""
    try:
        async with (
            asyncio.timeout(patience_s),
            session.post(url, data=body, headers={"content-type": "application/json"}) as answer,
        ):
            await answer.read()
    except TimeoutError:
        return


def _count(body: bytes, *, stream: bool, seen: Seen) -> None:
    if not stream:
        seen.complete += 1
        seen.tokens += json.loads(body)["usage"]["completion_tokens"]
    elif b"data: [DONE]" not in body:
        seen.failures["stream without an end"] += 1
    else:
        seen.complete += 1
        seen.tokens += body.count(CONTENT)


def draw(source: random.Random, cut_share: float) -> Chat:
    return Chat(stream=source.random() < 0.5, usage=source.random() < 0.5, cut=source.random() < cut_share)


class Group:
    """Sessions of the clients that stay, and of those that hang up: each has a key, so that the ledger tells them apart."""

    def __init__(self, url: str, keys: dict[str, str]) -> None:
        self.url = f"{url}/v1/chat/completions"
        self.seen = {name: Seen() for name in keys}
        self.sessions = {
            name: aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), timeout=TIMEOUT, headers={"authorization": f"Bearer {key}"}
            )
            for name, key in keys.items()
        }

    async def one(self, chat: Chat, number: int, patience_s: float) -> None:
        name = "leaving" if chat.cut else "staying"
        await ask(self.sessions[name], self.url, chat, number, patience_s, self.seen[name])

    async def close(self) -> None:
        for session in self.sessions.values():
            await session.close()


async def closed_loop(group: Group, source: random.Random, workers: int, seconds: float) -> float:
    """Completed requests per second when every client asks again at once."""
    until = time.monotonic() + seconds

    async def work(worker: int) -> None:
        number = worker
        while time.monotonic() < until:
            await group.one(draw(source, 0), number, 0)
            number += workers

    async with asyncio.TaskGroup() as tasks:
        for worker in range(workers):
            tasks.create_task(work(worker))
    return group.seen["staying"].complete / seconds


async def open_loop(group: Group, source: random.Random, rate: float, seconds: float, cut_share: float) -> int:
    """Asks at fixed times, whatever the answers do. Returns how many asked more than 100 ms late."""
    begun, number, late = time.monotonic(), 0, 0
    async with asyncio.TaskGroup() as tasks:
        while (due := begun + number / rate) < begun + seconds:
            wait = due - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            late += wait < -0.1
            tasks.create_task(group.one(draw(source, cut_share), number, source.uniform(0.01, 0.06)))
            number += 1
    return late


async def run(options: argparse.Namespace) -> dict[str, Any]:
    group = Group(options.url, {"staying": options.key, "leaving": options.leaving_key})
    source = random.Random(options.seed)
    begun = time.monotonic()
    told: dict[str, Any] = {}
    if options.rate:
        told["late"] = await open_loop(group, source, options.rate, options.seconds, options.cut_share)
    else:
        told["per_s"] = await closed_loop(group, source, options.workers, options.seconds)
    told["took_s"] = time.monotonic() - begun
    await group.close()
    return told | {name: seen.as_json() for name, seen in group.seen.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--leaving-key", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--rate", type=float, default=0, help="requests per second; without it a closed loop")
    parser.add_argument("--workers", type=int, default=64, help="clients of the closed loop")
    parser.add_argument("--cut-share", type=float, default=0)
    json.dump(asyncio.run(run(parser.parse_args())), sys.stdout)


if __name__ == "__main__":
    main()
