"""What makes a context be slept on, from outside: tools that run, a window that fills, an hour that comes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.acceptance.test_sleep import call, conversation, is_asleep, register, sleeping, thinks

from predawn.proxy.clock import SystemClock
from predawn.proxy.upstreams.scripted import Answer, Received, ToolCall

LOOKS_UP = ToolCall(name="look_up", arguments={"what": "prices"})
BODIES: dict[str, dict[str, Any]] = {
    "chat": {
        "messages": conversation(),
        "tools": [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}],
    },
    "messages": {
        "messages": conversation(),
        "max_tokens": 100,
        "tools": [{"name": "look_up", "input_schema": {"type": "object"}}],
    },
    "responses": {
        "input": conversation(),
        "tools": [{"type": "function", "name": "look_up", "parameters": {"type": "object"}}],
    },
}
PATHS = {"chat": "/chat/completions", "messages": "/messages", "responses": "/responses"}
WAITS = {"policy": "worthwhile", "expected_uses": 0}
"""Nothing is worth it, so that a context is only weighed."""


class LateClock(SystemClock):
    """The machine's clock with another wall time."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def now(self) -> float:
        return super().now() + self.ahead_s


async def shown_once(running: Any, state: str, trigger: str) -> dict[str, Any]:
    """The context, as soon as it is in this state because of this trigger."""
    async with asyncio.timeout(30):
        while True:
            _, shown = await call(running, "GET", "/contexts/shop")
            decision = shown["progress"]["decision"]
            if shown["state"] == state and decision is not None and decision["trigger"] == trigger:
                return shown
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("api", list(BODIES))
async def test_an_answer_that_calls_tools_is_a_time_to_sleep(tmp_path: Path, api: str, stream: bool) -> None:
    def calls(received: Received) -> Answer | str | None:
        return thinks(received) if is_asleep(received) else Answer(tool_calls=(LOOKS_UP,))

    async with sleeping(tmp_path, choose=calls, sleep=WAITS) as (running, _):
        await register(running)
        await shown_once(running, "skipped", "registered")
        body = {"model": "m", **BODIES[api], "stream": stream}
        async with aiohttp.ClientSession() as session, session.post(running.base_url + PATHS[api], json=body) as reply:
            said = await reply.text()
        shown = await shown_once(running, "skipped", "tool_calls")

    assert "look_up" in said
    assert shown["progress"]["decision"]["reason"] == "does_not_pay"


async def test_a_conversation_that_nears_its_window_is_slept_on(tmp_path: Path) -> None:
    async with sleeping(tmp_path, sleep={**WAITS, "window_tokens": 60}) as (running, client):
        await register(running)
        await shown_once(running, "skipped", "registered")
        await client.chat.completions.create(model="m", messages=conversation("Hello?"))
        shown = await shown_once(running, "skipped", "truncation")

    assert shown["progress"]["decision"]["reason"] == "does_not_pay"


async def test_at_the_hour_of_the_schedule_what_failed_is_tried_again(tmp_path: Path) -> None:
    clock, fails = LateClock(), True

    def choose(received: Received) -> Answer | str | None:
        return Answer(status=400) if fails and is_asleep(received) else thinks(received)

    soon = datetime.now(UTC) + timedelta(hours=2)
    async with sleeping(tmp_path, choose=choose, sleep={"schedule": [f"{soon:%H:%M}"]}, clock=clock) as (running, _):
        await register(running)
        before = await shown_once(running, "failed", "registered")
        asked = len(running.upstream.requests)
        fails = False
        clock.ahead_s = 2 * 3600.0
        shown = await shown_once(running, "asleep", "schedule")

    assert before["progress"]["decision"]["ended"]["outcome"] == "failed"
    assert asked == 1
    assert "ended" not in shown["progress"]["decision"]
