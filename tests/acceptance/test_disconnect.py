"""Clients go away, at any moment: the provider is let go at once, and what happened is on record, once."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import aiohttp
import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.acceptance.bare import Bare, bare, chat, post
from tests.acceptance.house import House, house, raw_upstream, until
from tests.acceptance.plugins import Slow, Watch

WORDS = 5
EVENTS = WORDS + 2
"""Events of the whole answer before `[DONE]`: the role, each word, the reason of the end."""
WHOLE_EVENT = re.compile(rb"data:[^\r\n]*\r?\n\r?\n")
PLUGINS: list[list[Any]] = [
    [],
    ["shout"],
    ["careless"],
    ["careless", "shout"],
    [{"record": {"record_content": True, "flush_s": 0.01}}],
]
properties = settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def recorded(plugins: list[Any]) -> list[Any]:
    """These plugins, and two that tell what was observed."""
    record = [] if any(isinstance(plugin, dict) for plugin in plugins) else [{"record": {"flush_s": 0.01}}]
    return [*plugins, *record, "watch"]


async def leave(client: Bare, how: str) -> None:
    if how == "aborts":
        client.abort()
    else:
        client.writer.close()


async def read_events(client: Bare, count: int) -> None:
    """Read until so many events have come to their ends."""
    await client.head()
    seen = b""
    while len(WHOLE_EVENT.findall(seen)) < count:
        piece = await client.chunk()
        assert piece is not None
        seen += piece


async def observed(running: House, ident: str) -> Any:
    """What the ledger's own endpoint tells."""
    await running.idle()
    watch = running.plugin(Watch)
    await until(lambda: any(exchange.id == ident for exchange in watch.seen))
    assert [exchange.id for exchange in watch.seen].count(ident) == 1
    async with aiohttp.ClientSession() as session, session.get(f"{running.base_url}/exchanges/{ident}") as reply:
        assert reply.status == 200
        return await reply.json()


@given(
    after=st.integers(0, EVENTS),
    plugins=st.sampled_from(PLUGINS),
    how=st.sampled_from(["aborts", "closes"]),
    style=st.sampled_from(["", "crlf", "byte_by_byte", "one_write", "comments"]),
)
@properties
def test_a_client_may_leave_after_any_chunk(after: int, plugins: list[Any], how: str, style: str) -> None:
    async def story() -> None:
        async with house("one two three four five", plugins=recorded(plugins)) as running:
            stalls = f"stall_mid_stream, after={after}{', ' if style else ''}{style}"
            async with bare(running.port) as client:
                await client.send(
                    post(chat(stream=True), "/v1/chat/completions", f"x-script: {stalls}", "x-request-id: gone")
                )
                if after:
                    await read_events(client, after)
                else:
                    await until(lambda: running.upstream.counts.in_flight == 1)
                await leave(client, how)
            kept = await observed(running, "gone")
            counts = running.upstream.counts

            assert (counts.opened, counts.closed, counts.cut) == (1, 1, 1)
            assert (kept["outcome"], kept["status"]) == ("client_closed", 499)
            assert [call["outcome"] for call in kept["calls"]] == ["cancelled"]
            assert kept["ledger"]["chunks"] == after
            assert (kept["ledger"]["output"] > 0) == (after > 0)
            assert await running.answers()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())


@pytest.mark.parametrize("fault", ["stall_headers", "stall_mid_stream", "first_byte_ms=60000"])
@pytest.mark.parametrize("plugins", PLUGINS, ids=repr)
@pytest.mark.parametrize("how", ["aborts", "closes"])
async def test_a_client_may_leave_while_it_waits_for_a_whole_answer(fault: str, plugins: list[Any], how: str) -> None:
    async with house("one two", plugins=recorded(plugins)) as running:
        async with bare(running.port) as client:
            await client.send(post(chat(), "/v1/chat/completions", f"x-script: {fault}", "x-request-id: gone"))
            await until(lambda: running.upstream.counts.in_flight == 1)
            await leave(client, how)
        kept = await observed(running, "gone")

        assert running.upstream.counts.cut == 1
        assert (kept["outcome"], kept["status"]) == ("client_closed", 499)
        assert await running.answers()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_client_may_leave_while_a_plugin_works(stream: bool) -> None:
    async with house(plugins=["slow", *recorded([])]) as running:
        async with bare(running.port) as client:
            await client.send(post(chat(stream=stream), "/v1/chat/completions", "x-request-id: gone"))
            await until(lambda: not running.is_idle)
            client.abort()
        kept = await observed(running, "gone")
        running.plugin(Slow).go.set()

        assert kept["outcome"] == "client_closed"
        assert running.upstream.counts.requests == 0
        assert await running.answers()


async def test_a_client_may_leave_while_a_retry_waits() -> None:
    over = {"retries": {"attempts": 3, "base_s": 60, "max_wait_s": 60}}
    async with house(plugins=recorded([]), upstream=over) as running:
        async with bare(running.port) as client:
            failing = "status=500, retry-after=50"
            await client.send(post(chat(), "/v1/chat/completions", f"x-script: {failing}", "x-request-id: gone"))
            await until(lambda: running.upstream.counts.closed == 1)
            client.abort()
        kept = await observed(running, "gone")

        assert kept["outcome"] == "client_closed"
        assert running.upstream.counts.requests == 1


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
async def test_a_client_may_leave_in_the_middle_of_its_request(part: float) -> None:
    async with house(plugins=["watch"]) as running:
        whole = post(chat(filler="x" * 100_000))
        async with bare(running.port) as client:
            await client.send(whole[: int(len(whole) * part)])
            await leave(client, "closes")
        await running.idle()

        assert running.upstream.counts.requests == 0
        assert await running.answers()


async def test_a_client_that_half_closes_still_gets_its_answer_or_is_let_go() -> None:
    """`shutdown(SHUT_WR)` is legal HTTP; whatever becomes of it, nothing may hang."""
    async with house("one two", plugins=["watch"]) as running:
        async with bare(running.port) as client:
            await client.send(post(chat(stream=True), "/v1/chat/completions", "x-script: interval_ms=10"))
            client.writer.write_eof()
            received = await client.closed()
        await running.idle()

        assert received == b"" or received.endswith(b"0\r\n\r\n")
        assert await running.answers()


@pytest.mark.parametrize("plugins", [[], ["shout"]], ids=repr)
async def test_a_client_that_stops_reading_is_let_go(plugins: list[Any]) -> None:
    """The provider is paused while the client does not read, and both are let go after the idle timeout."""
    quick = {"timeouts": {"connect_s": 1, "first_byte_s": 5, "idle_s": 0.3}}
    flood = {"raw": ["data: " + "x" * 500_000 + "\n\n"] * 60}
    async with house(plugins=[*plugins, "watch"], upstream=quick) as running:
        async with bare(running.port) as client:
            await client.send(post(chat(stream=True, script=flood)))
            await until(lambda: len(running.plugin(Watch).seen) == 1)
        await running.idle()
        (exchange,) = running.plugin(Watch).seen

        assert exchange.outcome == "client_closed"
        assert "read nothing" in exchange.error
        assert running.upstream.counts.cut == 1
        assert await running.answers()


async def test_a_crowd_of_leavers_leaves_nothing_behind() -> None:
    async with house("one two three four five", plugins=recorded(["shout"])) as running:

        async def visit(number: int) -> None:
            async with bare(running.port) as client:
                stalls = f"stall_mid_stream, after={number % (EVENTS + 1)}"
                await client.send(post(chat(stream=number % 3 > 0), "/v1/chat/completions", f"x-script: {stalls}"))
                if number % 3 and number % (EVENTS + 1):
                    await read_events(client, number % (EVENTS + 1))
                await leave(client, "aborts" if number % 2 else "closes")

        before = len(running.server._shared.tasks)
        await asyncio.gather(*(visit(number) for number in range(100)))
        await until(lambda: len(running.plugin(Watch).seen) >= running.upstream.counts.opened and running.is_idle)
        await running.idle()

        assert running.upstream.counts.opened == running.upstream.counts.closed > 0
        assert {exchange.outcome for exchange in running.plugin(Watch).seen} == {"client_closed"}
        assert len(running.server._shared.tasks) <= before + 1
        assert await running.answers()


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages", "/v1/completions"])
async def test_what_was_generated_until_then_is_booked(path: str) -> None:
    """The provider tells its counts at the end only, or a first count of one; what has come is counted instead."""
    async with house("one two three four five six seven eight nine ten", plugins=recorded([])) as running:
        async with bare(running.port) as client:
            body = chat(stream=True, prompt="x", input="x", max_tokens=99)
            await client.send(post(body, path, "x-script: stall_mid_stream, after=9", "x-request-id: gone"))
            await read_events(client, 9)
            client.abort()
        kept = await observed(running, "gone")

        assert kept["outcome"] == "client_closed"
        assert kept["ledger"]["output"] >= 3
        assert kept["ledger"]["prompt"] >= 1
        assert kept["ledger"]["estimated"] is True


@pytest.mark.parametrize("how", ["aborts", "closes"])
async def test_a_client_that_leaves_in_the_middle_of_an_upload_takes_it_along(how: str) -> None:
    """The provider must not take half a body for a whole one."""
    got = asyncio.Event()
    gone: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(1000)
        got.set()
        gone.append(await reader.read())

    async with raw_upstream(serve, reads=False) as provider:
        async with house(behind=provider.base_url, upstream={"relay": True}, plugins=["watch"]) as running:
            async with bare(running.port) as client:
                await client.send(post(b"x" * 1000, "/v1/files", "Content-Length: 3000000"))
                await got.wait()
                await leave(client, how)
                await until(lambda: bool(gone))
            await until(lambda: bool(running.plugin(Watch).seen) and not running.server.app.generation.service.relays)
            (seen,) = running.plugin(Watch).seen

            assert ([b""], "client_closed") == (gone, seen.outcome)


async def test_a_provider_that_refuses_an_upload_early_is_heard() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
        await reader.read()

    async with raw_upstream(serve, reads=False) as provider:
        async with house(behind=provider.base_url, upstream={"relay": True}) as running:
            async with bare(running.port) as client:
                await client.send(post(b"x" * 1000, "/v1/files", "Content-Length: 3000000"))
                answer = await client.answer()

            assert (413, b"{}") == (answer.status, answer.body)
