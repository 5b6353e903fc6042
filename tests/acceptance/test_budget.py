"""Budgets from outside: a real server, the official client, a scripted provider that thinks as it is told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from tests.acceptance.house import CLIENT_KEY, house
from tests.plugins.budget.cases import EASY, HARD

from predawn.proxy.upstreams.scripted import Answer, Received

MODELS = [{"name": "m", "upstream": "up", "reasoning": "reasoning_effort"}]


def thinks(received: Received) -> Answer:
    effort = received.json.get("reasoning_effort", "low")
    return Answer(text="42", reasoning="well " * {"none": 0, "low": 10, "medium": 50, "high": 200}.get(effort, 20))


async def read(running: Any, path: str, method: str = "GET", body: Any = None) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {CLIENT_KEY}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.request(method, running.base_url + path, json=body) as reply,
    ):
        return reply.status, await reply.json()


async def record(running: Any, ident: str) -> Any:
    async with asyncio.timeout(10):
        while True:
            status, shown = await read(running, f"/exchanges/{ident}")
            if status == 200:
                return shown
            await asyncio.sleep(0.02)


def settings(tmp_path: Path, **budget: Any) -> dict[str, Any]:
    return {"models": MODELS, "plugins": [{"budget": budget}, "record"], "state": str(tmp_path / "state.db")}


async def test_a_client_changes_nothing_and_the_record_tells_everything(tmp_path: Path) -> None:
    async with (
        house(choose=thinks, **settings(tmp_path)) as running,
        openai.AsyncOpenAI(base_url=running.base_url, api_key=CLIENT_KEY, max_retries=0) as client,
    ):
        spent = {}
        for name, text in (("easy", EASY), ("hard", HARD)):
            raw = await client.chat.completions.with_raw_response.create(
                model="m", messages=[{"role": "user", "content": text}]
            )
            shown = await record(running, raw.headers["x-request-id"])
            spent[name] = shown["ledger"]["output"]
            told = {one["what"]: one["detail"] for one in shown["decisions"] if one["by"] == "budget"}

            assert raw.parse().choices[0].message.content == "42"
            assert shown["difficulty"]["score"] == pytest.approx(float(raw.headers["x-predawn-difficulty"]), abs=0.01)
            assert told["allocated"]["tier"] in raw.headers["x-predawn-budget"]
            assert told["assessed"]["estimator"] == "features"
            assert shown["budget"]["effort"] is not None

    assert spent["hard"] > 5 * spent["easy"]


async def test_a_stream_is_judged_too_and_says_so_in_its_headers(tmp_path: Path) -> None:
    async with (
        house(choose=thinks, **settings(tmp_path)) as running,
        openai.AsyncOpenAI(base_url=running.base_url, api_key=CLIENT_KEY, max_retries=0) as client,
    ):
        raw = await client.chat.completions.with_raw_response.create(
            model="m", messages=[{"role": "user", "content": HARD}], stream=True
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in raw.parse() if chunk.choices])

    assert text == "42"
    assert "effort=high" in raw.headers["x-predawn-budget"]


async def test_learning_and_feedback_survive_a_restart(tmp_path: Path) -> None:
    question = "What is the usual colour of a rhubarb pie with cream?"
    scores = []
    for _ in range(2):
        async with (
            house(choose=thinks, **settings(tmp_path)) as running,
            openai.AsyncOpenAI(base_url=running.base_url, api_key=CLIENT_KEY, max_retries=0) as client,
        ):
            for _ in range(4):
                raw = await client.chat.completions.with_raw_response.create(
                    model="m", messages=[{"role": "user", "content": question}]
                )
                ident = raw.headers["x-request-id"]
                scores.append(float(raw.headers["x-predawn-difficulty"]))
                await record(running, ident)
                status, told = await read(running, f"/exchanges/{ident}/feedback", "POST", {"correct": False})

                assert (status, told["score"]) == (200, 0.0)

    assert scores[0] < 0.5 < scores[3]
    assert scores[4] >= scores[3]


async def test_a_day_that_is_spent_is_refused_on_the_next_server_too(tmp_path: Path) -> None:
    ceiling = settings(tmp_path, ceilings={"tokens_per_day": 60, "answer_tokens": 60})
    codes = []
    for _ in range(2):
        async with (
            house(choose=lambda _: "word " * 60, **ceiling) as running,
            openai.AsyncOpenAI(base_url=running.base_url, api_key=CLIENT_KEY, max_retries=0) as client,
        ):
            try:
                await client.chat.completions.create(
                    model="m", messages=[{"role": "user", "content": EASY}], max_tokens=60
                )
                codes.append("ok")
            except openai.RateLimitError as exc:
                codes.append(exc.code)

    assert codes == ["ok", "budget_exceeded"]


async def test_clients_that_hang_up_leave_nothing_held(tmp_path: Path) -> None:
    ceiling = settings(tmp_path, ceilings={"tokens_per_day": 1000, "answer_tokens": 400})
    async with house(choose=lambda _: Answer(text="word " * 400, interval_ms=20), **ceiling) as running:
        headers = {"Authorization": f"Bearer {CLIENT_KEY}"}
        body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": EASY}]}
        async with aiohttp.ClientSession(headers=headers) as session:
            for _ in range(4):
                async with session.post(f"{running.base_url}/chat/completions", json=body) as reply:
                    await reply.content.readany()

                    assert reply.status == 200
                await running.idle()
