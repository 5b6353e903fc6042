"""Reload, drain and time limits: running requests and the next ones fare alike in both lanes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import perf_counter
from typing import Any

import openai
import pytest
from tests.acceptance.bare import chat, post
from tests.lanes.client import Client, connected
from tests.lanes.lane import Lane, Lanes, lanes
from tests.lanes.plays import WHOLE
from tests.lanes.seen import Seen

from predawn.proxy import loading, service

CHAT = "/v1/chat/completions"
USER: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture
async def fresh() -> AsyncIterator[Lanes]:
    async with lanes() as running:
        yield running


def ask(play: str, *, stream: bool = False, model: str = "m") -> bytes:
    return post(chat(stream=stream, model=model), CHAT, f"x-play: {play}")


async def once(running: Lanes, story: Any) -> Seen:
    """A story that changes the servers and so cannot be told twice."""
    return await running.tell(story, again=False)


async def reload(lane: Lane, **changes: Any) -> None:
    await lane.reload(lambda settings: {**settings, **changes})


async def test_a_reload_is_obeyed_at_once_and_leaves_streams_alone(fresh: Lanes) -> None:
    async def story(lane: Lane, client: Client) -> None:
        async with connected(lane.port) as streaming, connected(lane.port) as waiting:
            await streaming.send(ask("stream held", stream=True))
            await streaming.gets(b"hel")
            await waiting.send(ask("held"))
            await client.send(ask("whole"))
            await client.gets(WHOLE)
            await reload(
                lane, models=[{"name": "m", "upstream": "up", "model": "renamed"}, {"name": "new", "upstream": "up"}]
            )
            await client.send(ask("whole"), ask("whole", model="new"), ask("whole", model="alias"))
            await client.gets(b" 404 ")
            lane.provider.go()
            await streaming.gets(b"\r\n0\r\n\r\n")
            await waiting.gets(WHOLE)
            await streaming.send(ask("whole", model="new"))
            await streaming.gets(WHOLE)
            await waiting.send(ask("whole", model="alias"))
            await waiting.gets(b" 404 ")

    seen = await once(fresh, story)

    assert seen.statuses == [200, 200, 200, 404]
    assert sorted(asked.body.count(b'"renamed"') for asked in seen.received) == [0, 0, 0, 0, 0, 1]


async def test_a_model_may_be_given_a_plugin_by_a_reload(fresh: Lanes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(loading.BUILT_IN, "shout", "tests.acceptance.plugins:Shout")

    async def story(lane: Lane, client: Client) -> None:
        for plugins in ([], ["shout"], [{"shout": {"models": ["alias"]}}], []):
            await reload(lane, plugins=plugins)
            before = client.received.count(b"[DONE]")
            await client.send(ask("stream", stream=True))
            await client.gets(b"[DONE]", before + 1)
            await lane.quiet(client)

    seen = await once(fresh, story)

    assert [b"HEL" in answer.body for answer in seen.answers] == [False, True, False, False]


async def test_keys_that_appear_are_asked_for_at_once(fresh: Lanes) -> None:
    async def story(lane: Lane, client: Client) -> None:
        await client.send(ask("whole"))
        await client.gets(WHOLE)
        await lane.add_key("sk-first")
        await client.send(ask("whole"))
        await client.gets(b" 401 ")

    for lane in fresh.each:
        await lane.server._shared.access._open_store()  # one after another: migrations share their environment
    seen = await once(fresh, story)

    assert seen.statuses == [200, 401]


async def test_a_reload_may_send_requests_to_another_upstream(fresh: Lanes) -> None:
    async def story(lane: Lane, client: Client) -> None:
        for upstream in ("up", "dressed", "few", "second"):
            await reload(lane, models=[{"name": "m", "upstream": upstream}])
            before = client.received.count(WHOLE)
            await client.send(ask("whole"))
            await client.gets(WHOLE, before + 1)

    seen = await once(fresh, story)

    assert [answer.value("x-predawn-upstream") for answer in seen.answers] == ["up", "dressed", "few", "second"]
    assert [asked.value("x-own") for asked in seen.received].count("1") == 1


async def test_a_drain_refuses_new_requests_and_ends_streams(fresh: Lanes) -> None:
    async def story(lane: Lane, client: Client) -> None:
        async with connected(lane.port) as streaming, connected(lane.port) as waiting, connected(lane.port) as idle:
            await streaming.send(ask("stream held", stream=True))
            await streaming.gets(b"hel")
            await waiting.send(ask("held"))
            await idle.send(ask("whole"))
            await idle.gets(WHOLE)
            await lane.held(client, 2)
            drain = lane.server._shared.tasks.spawn(lane.server.drain(grace_s=0), "drain")
            await lane.quiet(busy=True)
            await idle.send(b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n")
            await idle.gets(b" 503 ")
            await client.send(ask("whole"))
            await client.gets(b"shutting_down")
            while not drain.done():
                await lane.clock.advance(0.05)
            await streaming.ends()
            await waiting.gets(b"shutting_down")
            told[lane.name] = (bytes(streaming.received)[-200:], bytes(waiting.received).count(b" 503 "))

    told: dict[str, tuple[bytes, int]] = {}
    seen = await once(fresh, story)

    assert seen.statuses == [503]
    assert seen.answer.value("connection") == "close"
    assert not seen.is_open
    assert told["fast"] == told["full"]
    assert b"shutting_down" in told["fast"][0]
    assert not told["fast"][0].endswith(b"0\r\n\r\n")
    assert told["fast"][1] == 1


async def test_a_drain_waits_for_streams(fresh: Lanes) -> None:
    async def story(lane: Lane, client: Client) -> None:
        await client.send(ask("stream held", stream=True))
        await client.gets(b"hel")
        drain = lane.server._shared.tasks.spawn(lane.server.drain(grace_s=0), "drain")
        for _ in range(3):
            await lane.clock.advance(0.05)
        assert not drain.done()
        lane.provider.go()
        await client.gets(b"\r\n0\r\n\r\n")
        await lane.quiet(client)
        await lane.clock.advance(0.05)
        async with asyncio.timeout(5):
            await drain

    seen = await once(fresh, story)

    assert seen.answer.whole


@pytest.mark.parametrize("play", ["held", "held in the body", "stream held before the head", "stream held"])
async def test_a_request_that_takes_too_long_is_ended(play: str, fresh: Lanes, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(lane: Lane, client: Client) -> None:
        await client.send(ask(play, stream="stream" in play))
        await lane.held(client)
        monkeypatch.setattr(service, "perf_counter", lambda: perf_counter() + 61)
        lane.server.app.generation.service.interrupt_overdue()
        await client.gets(b"error")

    seen = await once(fresh, story)

    assert seen.statuses == [200 if play == "stream held" else 504]
    assert b"time limit" in seen.answer.body
    assert seen.left == 1


async def test_a_breaker_opens_and_closes_alike(fresh: Lanes) -> None:
    quick = {"breaker": {"failures": 3, "cool_s": 10}, "timeouts": {"connect_s": 7}}

    async def story(lane: Lane, client: Client) -> None:
        ups = [{**up, **quick} for up in lane.plain_settings["upstreams"] if up["name"] == "up"]
        await reload(lane, upstreams=ups, models=[{"name": "m", "upstream": "up"}])

        async def one(play: str) -> None:  # on a connection of its own, which is the fast lane's at first
            async with connected(lane.port) as asking:
                await asking.send(ask(play))
                await asking.gets(b"\r\n\r\n")
                await lane.quiet(asking)
                told[lane.name].append(asking.answers[0][0].status)

        for play in ["status 500", "status 500", "whole", "status 500", "status 404", "status 500", "status 500"]:
            await one(play)  # never three failures in a row
        for play in ["status 500", "whole", "whole"]:
            await one(play)
        await lane.clock.advance(11)
        for play in ["status 500", "whole"]:
            await one(play)
        await lane.clock.advance(11)
        for play in ["whole", "whole"]:
            await one(play)

    told: dict[str, list[int]] = {"fast": [], "full": []}
    seen = await once(fresh, story)

    assert told["full"] == told["fast"]
    assert told["fast"] == [500, 500, 200, 500, 404, 500, 500, 500, 503, 503, 500, 503, 200, 200]
    assert len(seen.received) == 11


@pytest.mark.parametrize("name", ["fast", "full"])
async def test_the_official_client_works(name: str, fresh: Lanes) -> None:
    lane: Lane = getattr(fresh, name)
    async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{lane.port}/v1", api_key="sk-x", max_retries=0) as client:
        for _ in range(2):
            whole = await client.chat.completions.create(model="m", messages=USER, extra_headers={"x-play": "whole"})
            stream = await client.chat.completions.create(
                model="counting", messages=USER, stream=True, extra_headers={"x-play": "stream with usage"}
            )
            chunks = [chunk async for chunk in stream]
            with pytest.raises(openai.NotFoundError, match="nobody"):
                await client.chat.completions.create(model="nobody", messages=USER)
            with pytest.raises(openai.RateLimitError):
                await client.chat.completions.create(model="m", messages=USER, extra_headers={"x-play": "status 429"})
            with pytest.raises(openai.APIError):
                broken = await client.chat.completions.create(
                    model="m", messages=USER, stream=True, extra_headers={"x-play": "stream closed in an event"}
                )
                [chunk async for chunk in broken]
            models = [model.id async for model in client.models.list()]

    assert whole.choices[0].message.content == "hello there"
    assert whole.usage is not None
    assert whole.usage.total_tokens == 10
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "hello"
    assert "alias" in models
