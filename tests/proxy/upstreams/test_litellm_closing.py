from __future__ import annotations

import asyncio

import pytest
from tests.fixtures.provider import Course, Failure, Raw
from tests.fixtures.translation import CLAUDE, REMARKS, Case, events, read, soon

from predawn.proxy.upstreams.base import UpstreamError

pytestmark = REMARKS


async def test_closing_the_source_cancels_the_providers_request_at_once(case: Case) -> None:
    case.server.will(case.answer(course=Course(hold_after=4 if case.model == CLAUDE else 1)))
    reply = await case.send(stream=True)
    assert reply.source is not None
    await anext(aiter(reply.source))
    await reply.source.aclose()
    await reply.source.aclose()

    assert await soon(case.server.disconnected)
    assert [data async for data in reply.source] == []


async def test_closing_the_source_ends_a_read_in_another_task(case: Case) -> None:
    case.server.will(case.answer(course=Course(hold_after=4 if case.model == CLAUDE else 1)))
    reply = await case.send(stream=True)
    source = reply.source
    assert source is not None

    async def drain() -> int:
        return len([data async for data in source])

    async with asyncio.TaskGroup() as group:
        reading = group.create_task(drain())
        await soon(case.server.holding)
        await source.aclose()

    assert reading.result() <= 1
    assert await soon(case.server.disconnected)


@pytest.mark.parametrize("stream", [False, True])
async def test_cancelling_a_call_cancels_the_providers_request(case: Case, stream: bool) -> None:
    case.server.will(case.answer(course=Course(hold_after=0)))
    async with asyncio.TaskGroup() as group:
        call = group.create_task(case.send(stream=stream))
        await soon(case.server.holding)
        call.cancel()

    assert call.cancelled()
    assert await soon(case.server.disconnected)


async def test_cancelling_a_read_cancels_the_providers_request_once_closed(case: Case) -> None:
    case.server.will(case.answer(course=Course(hold_after=4 if case.model == CLAUDE else 1)))
    reply = await case.send(stream=True)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(events(reply))
        await soon(case.server.holding)
        reading.cancel()
    assert reply.source is not None
    await reply.source.aclose()

    assert await soon(case.server.disconnected)


async def test_nothing_is_left_behind_on_the_loop(case: Case) -> None:
    before = asyncio.all_tasks()
    for stream in (False, True):
        reply = await case.send(stream=stream, stream_options={"include_usage": True} if stream else None)
        await (events(reply) if stream else read(reply))
        case.server.will(Failure(500, "api_error"), Raw((b"data: {",), content_type="text/event-stream"))
        await case.send(stream=stream)
        with pytest.raises(UpstreamError):
            await case.send(stream=True)
    await case.upstream.aclose()
    await case.server.__aexit__()
    for _ in range(3):
        await asyncio.sleep(0)
    left = [task for task in asyncio.all_tasks() - before if not task.done()]

    assert left == []
