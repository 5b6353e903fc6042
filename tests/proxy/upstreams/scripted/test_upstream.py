from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.plugins.testing.clock import ManualClock, settle
from predawn.proxy.exchange import Reply
from predawn.proxy.problems import SettingsError
from predawn.proxy.settings import UpstreamSettings
from predawn.proxy.tasks import Tasks
from predawn.proxy.upstreams.base import Upstream, UpstreamError, UpstreamRequest
from predawn.proxy.upstreams.scripted import Answer, Received, Script, ScriptedUpstream


def request(*, stream: bool = True, headers: dict[str, str] | None = None, **members: Any) -> UpstreamRequest:
    decoded = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": stream, **members}
    body = json.dumps(decoded).encode()
    return UpstreamRequest(
        "chat", "POST", "/chat/completions", "m", body, headers or {}, stream=stream, decoded=lambda: decoded
    )


async def read(reply: Reply) -> bytes:
    assert reply.source is not None
    try:
        return b"".join([data async for data in reply.source])
    finally:
        await reply.source.aclose()


async def test_it_is_an_upstream_that_says_what_the_script_says() -> None:
    upstream: Upstream = ScriptedUpstream("hello there")
    await upstream.open()

    reply = await upstream.send(request())
    said = [c.data["choices"][0]["delta"].get("content") async for c in reply.chunks if c.data]

    assert said == ["", "hello", " there", None]
    assert reply.is_stream
    assert reply.headers["x-upstream-request-id"] == "req_scripted_1"
    assert await upstream.models() == ["scripted"]


@given(pieces=st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=6))
def test_raw_pieces_come_byte_for_byte_and_piece_by_piece(pieces: list[bytes]) -> None:
    async def go() -> None:
        reply = await ScriptedUpstream(Script(raw=tuple(pieces))).send(request())
        assert reply.source is not None

        assert [data async for data in reply.source] == pieces

    asyncio.run(go())


async def test_what_arrived_is_kept_as_it_came() -> None:
    upstream = ScriptedUpstream("a")

    await read(await upstream.send(request(headers={"X-Thing": "1"}, unknown=[1, 2])))

    assert upstream.requests[-1].json["unknown"] == [1, 2]
    assert upstream.requests[-1].headers["x-thing"] == "1"
    assert upstream.requests[-1].text == "hi"


async def test_bytes_come_when_the_clock_says_so() -> None:
    clock = ManualClock()
    upstream = ScriptedUpstream(Script(text="a b", first_byte_ms=500, interval_ms=100), clock=clock)
    tasks = Tasks()
    sending = tasks.spawn(upstream.send(request()), "send")

    await clock.advance(0.4)
    assert not sending.done()

    await clock.advance(0.2)
    assert sending.done()
    reading = tasks.spawn(read(sending.result()), "read")
    await clock.advance(0.05)
    assert not reading.done()
    await clock.advance(0.06)

    assert (await reading).endswith(b"data: [DONE]\n\n")


@given(after=st.integers(0, 8), again=st.booleans())
def test_a_reply_is_closed_once_wherever_it_is_left(after: int, again: bool) -> None:
    async def go() -> None:
        upstream = ScriptedUpstream(Script(text="a b c"))  # six events
        reply = await upstream.send(request())
        assert reply.source is not None
        seen = 0
        async for _ in reply.source:
            if seen == after:
                break
            seen += 1
        await reply.source.aclose()
        if again:
            await reply.source.aclose()
        counts = upstream.counts

        assert (counts.opened, counts.closed, counts.in_flight) == (1, 1, 0)
        assert (counts.finished, counts.cut) == ((1, 0) if after >= 6 else (0, 1))
        assert counts.output_tokens == min(3, max(0, after))

    asyncio.run(go())


async def test_cancelling_a_send_closes_its_reply() -> None:
    upstream = ScriptedUpstream(Script(fault="stall_headers"))
    tasks = Tasks()
    tasks.spawn(upstream.send(request()), "send")
    await settle()
    assert upstream.counts.in_flight == 1

    await tasks.cancel()

    assert (upstream.counts.in_flight, upstream.counts.cut) == (0, 1)


@pytest.mark.parametrize(
    ("fault", "reason", "sent_nothing"),
    [("refuse", "connect", True), ("die_first_byte", "truncated", True)],
)
async def test_a_fault_before_the_first_byte_raises_from_send(fault: Any, reason: str, sent_nothing: bool) -> None:
    upstream = ScriptedUpstream(Answer(fault=fault))

    with pytest.raises(UpstreamError) as caught:
        await upstream.send(request())

    assert (caught.value.reason, caught.value.sent_nothing) == (reason, sent_nothing)
    assert (upstream.counts.failed, upstream.counts.in_flight) == (1, 0)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", ["die_mid_event", "length_too_long"])
async def test_a_fault_in_the_body_raises_from_the_source(fault: Any, stream: bool) -> None:
    reply = await ScriptedUpstream(Answer(text="a b", fault=fault)).send(request(stream=stream))

    with pytest.raises(UpstreamError) as caught:
        await read(reply)

    assert (caught.value.reason, caught.value.sent_nothing) == ("truncated", False)


async def test_a_length_that_is_too_short_cuts_the_body() -> None:
    whole = await read(await ScriptedUpstream("a b").send(request(stream=False)))
    cut = await read(await ScriptedUpstream(Answer(text="a b", fault="length_too_short")).send(request(stream=False)))

    assert whole.startswith(cut)
    assert len(cut) == len(whole) // 2


@pytest.mark.parametrize(
    ("fault", "reason", "seconds"),
    [
        ("stall_headers", "timeout_ttft", 3),
        ("stall_first_byte", "timeout_ttft", 3),
        ("stall_mid_stream", "timeout_idle", 2),
    ],
)
async def test_a_stall_ends_with_the_timeout_of_the_settings(fault: str, reason: str, seconds: float) -> None:
    settings = UpstreamSettings.model_validate(
        {"name": "fake", "kind": "scripted", "script": {"fault": fault}, "timeouts": {"first_byte_s": 3, "idle_s": 2}}
    )
    clock = ManualClock()
    upstream = ScriptedUpstream.from_settings(settings, clock)
    tasks = Tasks()

    async def call() -> None:
        await read(await upstream.send(request()))

    async def caught() -> UpstreamError:
        with pytest.raises(UpstreamError) as info:
            await call()
        return info.value

    calling = tasks.spawn(caught(), "call")
    await clock.advance(seconds - 0.1)
    assert not calling.done()
    await clock.advance(0.2)
    error = await calling

    assert (error.reason, error.upstream) == (reason, "fake")
    assert upstream.counts.in_flight == 0


async def test_an_unknown_key_in_the_settings_is_refused() -> None:
    settings = UpstreamSettings.model_validate({"name": "fake", "kind": "scripted", "script": {"interval": 3}})

    with pytest.raises(
        SettingsError, match=r"upstreams.fake.script.interval: unknown key — did you mean 'interval_ms'"
    ):
        ScriptedUpstream.from_settings(settings, ManualClock())


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
async def test_an_error_status_is_a_reply_with_its_headers(status: int) -> None:
    answer = Answer(status=status, headers={"Retry-After": "7", "x-ratelimit-remaining-requests": "0"})
    reply = await ScriptedUpstream(answer).send(request())

    assert reply.status == status
    assert (reply.headers["retry-after"], reply.headers["x-ratelimit-remaining-requests"]) == ("7", "0")
    assert "message" in json.loads(await read(reply))["error"]


async def test_answers_come_in_order_then_the_scripts_own() -> None:
    upstream = ScriptedUpstream(Script.of("first", Answer(status=500)).model_copy(update={"text": "else"}))
    statuses = [(await upstream.send(request(stream=False))).status for _ in range(3)]

    assert statuses == [200, 500, 200]


async def test_answers_may_cycle() -> None:
    upstream = ScriptedUpstream(Script(answers=(Answer(status=500), Answer(status=200)), cycle=True))

    assert [(await upstream.send(request())).status for _ in range(4)] == [500, 200, 500, 200]


async def test_a_function_may_choose_the_answer() -> None:
    def choose(received: Received) -> str | None:
        return "yes" if received.json.get("temperature") == 1 else None

    upstream = ScriptedUpstream("no", choose=choose)
    said = [
        json.loads(await read(await upstream.send(request(stream=False, temperature=t))))["choices"][0]["message"][
            "content"
        ]
        for t in (0, 1)
    ]

    assert said == ["no", "yes"]


async def test_a_request_may_ask_for_its_fault_by_header_body_or_model() -> None:
    upstream = ScriptedUpstream("a")
    replies = [
        await upstream.send(request(headers={"x-script": "status=429, retry-after=1"})),
        await upstream.send(request(script={"status": 503})),
        await upstream.send(request(script="status=500")),
        await upstream.send(request(model="script:status=404")),
    ]

    assert [reply.status for reply in replies] == [429, 503, 500, 404]
    assert replies[0].headers["retry-after"] == "1"


async def test_errors_are_drawn_from_the_seed_at_the_given_rate() -> None:
    async def statuses(seed: int) -> list[int]:
        upstream = ScriptedUpstream(Script(text="a", error_rate=0.2, errors=("status=500", "status=503"), seed=seed))
        return [(await upstream.send(request())).status for _ in range(300)]

    first = await statuses(1)

    assert first == await statuses(1)
    assert first != await statuses(2)
    assert {500, 503} < set(first)
    assert 30 < sum(status >= 500 for status in first) < 90


async def test_tokens_generated_for_nobody_are_counted_but_not_reported() -> None:
    upstream = ScriptedUpstream("a b c d")
    cut = await upstream.send(request())
    assert cut.source is not None
    reading = aiter(cut.source)
    for _ in range(3):
        await anext(reading)
    await cut.source.aclose()
    await read(await upstream.send(request()))

    assert (upstream.counts.output_tokens, upstream.counts.reported_tokens) == (6, 4)
    assert upstream.counts.prompt_tokens == 2


async def test_a_body_that_arrives_in_pieces_is_joined() -> None:
    async def pieces() -> Any:
        yield b"ab"
        yield b"cd"

    raw = UpstreamRequest(
        "raw", "POST", "/files?x=1", "", pieces(), {"Content-Type": "a/b"}, stream=False, decoded=dict
    )
    upstream = ScriptedUpstream()
    reply = await upstream.send(raw)

    assert await read(reply) == b"abcd"
    assert (reply.headers["content-type"], reply.headers["x-echo-path"]) == ("a/b", "/files?x=1")


async def test_only_the_latest_requests_are_kept() -> None:
    upstream = ScriptedUpstream("a")
    upstream.stage._keep = 10
    for number in range(50):
        await upstream.send(request(seed=number))

    assert len(upstream.requests) <= 20
    assert upstream.requests[-1].json["seed"] == 49
    assert upstream.counts.requests == 50


def test_its_repr_tells_its_state() -> None:
    assert repr(ScriptedUpstream("a")) == "<ScriptedUpstream 'scripted' 0 requests, 0 in flight>"
