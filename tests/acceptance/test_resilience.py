"""Providers fail: what is tried again, what is passed on, and what nobody is told twice."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from contextlib import AsyncExitStack, ExitStack
from time import perf_counter
from typing import Any

import openai
import pytest
from tests.acceptance.bare import ask, bare, chat, post
from tests.acceptance.house import CLIENT_KEY, House, house, raw_upstream, until
from tests.acceptance.plugins import Slow, Watch

from predawn.plugins.testing import ManualClock
from predawn.proxy.upstreams.scripted import Answer, Script

USER: Any = [{"role": "user", "content": "hello"}]
TWICE = {"retries": {"attempts": 2, "base_s": 0.001}}
THRICE = {"retries": {"attempts": 3, "base_s": 0.001}}


def client_of(running: House, **options: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=running.base_url, api_key=CLIENT_KEY, **options)


def failing(**members: Any) -> Answer:
    return Answer(**members)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_passing_failure_is_not_seen(status: int, stream: bool) -> None:
    script = Script(text="fine", answers=(failing(status=status),))
    async with house(script, upstream=TWICE) as running:
        answer = await ask(running.port, chat(stream=stream))

        assert answer.status == 200
        assert answer.whole
        assert b"fine" in answer.body
        assert running.upstream.counts.requests == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 422])
async def test_a_clients_own_error_is_not_tried_again(status: int) -> None:
    async with house(failing(status=status), upstream=THRICE) as running:
        answer = await ask(running.port, chat())

        assert answer.status == status
        assert running.upstream.counts.requests == 1
        assert "x-should-retry" not in answer.headers


@pytest.mark.parametrize("fault", [{"status": 429}, {"status": 500}, {"fault": "refuse"}], ids=str)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_the_sdk_does_not_multiply_our_retries(fault: dict[str, Any], stream: bool) -> None:
    async with house(failing(**fault), upstream=THRICE) as running, client_of(running, max_retries=2) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await client.chat.completions.create(model="m", messages=USER, stream=stream)

        assert caught.value.response.headers["x-should-retry"] == "false"
        assert running.upstream.counts.requests == 3


async def test_a_provider_that_is_not_there_is_502_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and never listening: connections are refused
        nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        async with house(behind=nowhere, upstream=TWICE) as running:
            for stream in (False, True):
                answer = await ask(running.port, chat(stream=stream))

                assert (answer.status, answer.error["code"]) == (502, "upstream_error")
                assert answer.headers["x-should-retry"] == "false"
                assert answer.headers["x-request-id"]


async def test_a_long_retry_after_is_handed_on_at_once() -> None:
    busy = failing(status=429, headers={"retry-after": "14", "x-ratelimit-remaining-requests": "0"})
    async with house(busy, upstream=THRICE) as running:
        began = perf_counter()
        answer = await ask(running.port, chat())

        assert perf_counter() - began < 2
        assert answer.status == 429
        assert answer.headers["retry-after"] == "14"
        assert answer.headers["x-ratelimit-remaining-requests"] == "0"
        assert running.upstream.counts.requests == 1


@pytest.mark.parametrize("headers", [{"retry-after": "1.5"}, {"retry-after-ms": "1500", "retry-after": "60"}], ids=str)
async def test_a_short_retry_after_is_waited_for(headers: dict[str, str]) -> None:
    clock = ManualClock()
    script = Script(text="fine", answers=(failing(status=429, headers=headers),))
    async with house(script, upstream=TWICE, clock=clock) as running, bare(running.port) as client:
        await client.send(post(chat()))
        await until(lambda: running.upstream.counts.closed == 1)
        await clock.advance(1.4)
        too_early = running.upstream.counts.requests
        for _ in range(20):
            await clock.advance(0.1)
        answer = await client.answer()

        assert too_early == 1
        assert answer.status == 200
        assert running.upstream.counts.requests == 2


@pytest.mark.parametrize("value", ["soon", "", "-5", "nan", "1e400", "Wed, 99 Foo 2099", "٣"])
async def test_an_unreadable_retry_after_does_no_harm(value: str) -> None:
    async with (
        raw_upstream(
            f"HTTP/1.1 503 x\r\nretry-after: {value}\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}".encode()
        ) as provider,
        house(behind=provider.base_url, upstream=TWICE) as running,
    ):
        answer = await ask(running.port, chat())

        assert (answer.status, answer.body) == (503, b"{}")


async def test_fallbacks_are_tried_in_their_order() -> None:
    models = [
        {"name": "m", "upstream": "up", "fallbacks": ["second", "third"]},
        {"name": "second", "upstream": "b", "model": "b-model"},
        {"name": "third", "upstream": "c", "model": "c-model", "fallbacks": ["m"]},
    ]
    models[2].pop("fallbacks")
    others = {"b": failing(status=503), "c": "from c"}
    async with house(failing(fault="refuse"), upstream=TWICE, others=others, models=models) as running:
        for stream in (False, True):
            answer = await ask(running.port, chat(stream=stream))

            assert answer.status == 200
            assert answer.headers["x-predawn-upstream"] == "c"
            assert b"from" in answer.body
        counts = (running.upstream.counts.requests, running.others["b"].counts.requests)
        assert counts == (4, 4)
        assert running.others["c"].requests[0].json["model"] == "c-model"
        assert running.others["c"].requests[0].headers["Authorization"]


async def test_a_clients_own_error_falls_back_to_nobody() -> None:
    models = [{"name": "m", "upstream": "up", "fallbacks": ["b"]}, {"name": "b", "upstream": "b"}]
    async with house(failing(status=400), others={"b": "fine"}, models=models) as running:
        answer = await ask(running.port, chat())

        assert answer.status == 400
        assert running.others["b"].counts.requests == 0


async def test_a_provider_that_was_given_up_is_let_go_while_the_fallback_streams() -> None:
    models = [{"name": "m", "upstream": "up", "fallbacks": ["b"]}, {"name": "b", "upstream": "b"}]
    stalls = failing(text="one two three", fault="stall_mid_stream", after=2)
    async with house(failing(status=503), others={"b": stalls}, models=models) as running:
        async with bare(running.port) as client:
            await client.send(post(chat(stream=True)))
            await client.head()
            await client.chunk()

            assert running.station("up").in_flight == 0
            assert running.station("b").in_flight == 1


BREAKER = {"breaker": {"failures": 3, "cool_s": 30}}


async def test_a_breaker_leaves_a_failing_provider_alone_and_tries_again() -> None:
    clock = ManualClock()
    script = Script(text="fine", answers=(failing(status=500),) * 4)
    async with house(script, upstream=BREAKER, clock=clock) as running:

        async def status() -> int:
            return (await ask(running.port, chat())).status

        closed = [await status() for _ in range(3)]
        opened = [await status() for _ in range(3)]
        asked_while_open = running.upstream.counts.requests
        await clock.advance(31)
        probe_failed, refused_again = await status(), await status()
        await clock.advance(31)
        probe, after = await status(), await status()

        assert closed == [500, 500, 500]
        assert opened == [503, 503, 503]
        assert asked_while_open == 3
        assert (probe_failed, refused_again) == (500, 503)
        assert (probe, after) == (200, 200)


async def test_one_request_probes_while_others_are_refused() -> None:
    clock = ManualClock()
    script = Script(text="fine", answers=(failing(status=500),) * 3 + (failing(fault="stall_headers"),))
    async with house(script, upstream=BREAKER, clock=clock) as running:
        for _ in range(3):
            await ask(running.port, chat())
        await clock.advance(31)
        async with bare(running.port) as probe:
            await probe.send(post(chat()))
            await until(lambda: running.upstream.counts.in_flight == 1)
            refused = await ask(running.port, chat())
            probe.abort()
            await running.idle()
        next_probe = await ask(running.port, chat())

        assert (refused.status, refused.error["code"]) == (503, "upstream_unavailable")
        assert next_probe.status == 200


async def test_the_answer_that_opens_the_breaker_arrives_whole() -> None:
    """Its connection must not be let go for a retry that the breaker then forbids."""
    body = b'{"error":{"message":"' + b"x" * 500_000 + b'"}}'
    over = {"breaker": {"failures": 2, "cool_s": 30}, **THRICE}
    told = b"HTTP/1.1 500 x\r\nretry-after: 0\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with raw_upstream(told + body) as provider, house(behind=provider.base_url, upstream=over) as running:
        answer = await ask(running.port, chat())

        assert (answer.status, answer.body) == (500, body)
        assert provider.connections == 2


async def test_an_unavailable_fallback_does_not_hide_the_answer() -> None:
    models = [{"name": "m", "upstream": "up", "fallbacks": ["b"]}, {"name": "b", "upstream": "b"}]
    busy = failing(status=429, headers={"retry-after": "9"})
    over = {"breaker": {"failures": 1, "cool_s": 30}}
    async with house(busy, others={"b": failing(status=500)}, models=models, upstream=over) as running:
        await ask(running.port, chat())
        answer = await ask(running.port, chat())

        assert (answer.status, answer.headers["retry-after"]) == (429, "9")


async def test_client_errors_open_no_breaker() -> None:
    async with house(failing(status=400), upstream=BREAKER) as running:
        statuses = {(await ask(running.port, chat())).status for _ in range(6)}

        assert statuses == {400}


async def test_targets_share_the_traffic_by_weight() -> None:
    targets = [{"upstream": "up", "weight": 9}, {"upstream": "b", "weight": 1}]
    async with house("a", others={"b": "b"}, models=[{"name": "m", "targets": targets}]) as running:
        async with bare(running.port) as client:
            answers = [await client.ask(chat()) for _ in range(60)]
        shares = Counter(answer.headers["x-predawn-upstream"] for answer in answers)

        assert shares["up"] > shares["b"]
        assert shares.total() == 60


async def test_the_target_with_the_fewest_requests_is_chosen() -> None:
    targets = [{"upstream": "up"}, {"upstream": "b"}]
    stalls = failing(text="a b c d", fault="stall_mid_stream", after=1)
    async with house(stalls, others={"b": stalls}, models=[{"name": "m", "targets": targets}]) as running:
        async with AsyncExitStack() as stack:
            for _ in range(6):
                client = await stack.enter_async_context(bare(running.port))
                await client.send(post(chat(stream=True)))
                await client.head()
            busy = (running.station("up").in_flight, running.station("b").in_flight)
        await running.idle()

        assert busy == (3, 3)


async def test_a_dead_target_costs_nobody_an_answer() -> None:
    targets = [{"upstream": "up"}, {"upstream": "b"}]
    models = [{"name": "m", "targets": targets}]
    async with house(failing(fault="refuse"), others={"b": "fine"}, models=models, upstream=TWICE) as running:
        async with bare(running.port) as client:
            statuses = {(await client.ask(chat())).status for _ in range(30)}

        assert statuses == {200}
        assert 0 < running.upstream.counts.requests <= 8  # then its breaker is open


async def test_a_connection_that_is_not_accepted_times_out() -> None:
    with socket.socket() as full, ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # fills the queue of connections that nobody accepts
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        nowhere = f"http://127.0.0.1:{full.getsockname()[1]}/v1"
        quick = {"timeouts": {"connect_s": 0.3}}
        async with house(behind=nowhere, upstream=quick) as running:
            began = perf_counter()
            answer = await ask(running.port, chat())

            assert (answer.status, answer.error["code"]) == (502, "upstream_error")
            assert perf_counter() - began < 3


SHORT = {"timeouts": {"connect_s": 1, "first_byte_s": 0.2, "idle_s": 0.2}}


@pytest.mark.parametrize("fault", ["stall_headers", "stall_first_byte"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_first_byte_that_does_not_come_is_504(fault: Any, stream: bool) -> None:
    async with house(failing(fault=fault), upstream=SHORT) as running:
        answer = await ask(running.port, chat(stream=stream))
        await running.idle()

        assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")
        assert running.upstream.counts.cut == 1


@pytest.mark.parametrize("plugins", [[], ["shout"], ["careless"]], ids=lambda names: "+".join(names) or "none")
async def test_a_stream_that_goes_quiet_is_broken_off(plugins: list[str]) -> None:
    quiet = failing(text="one two three", fault="stall_mid_stream", after=2)
    async with house(quiet, upstream=SHORT, plugins=plugins) as running:
        answer = await ask(running.port, chat(stream=True))
        await running.idle()

        assert answer.status == 200
        assert not answer.whole
        assert b"upstream_timeout" in answer.data[-1]
        assert running.upstream.counts.cut == 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_request_that_takes_too_long_in_all_is_ended(stream: bool) -> None:
    endless = failing(chunks=1000, interval_ms=20)
    long = {"timeouts": {"connect_s": 1, "first_byte_s": 50, "idle_s": 50, "total_s": 0.3}}
    async with house(endless, upstream=long) as running:
        answer = await ask(running.port, chat(stream=stream))
        await running.idle()

        if stream:
            assert not answer.whole
            assert b"upstream_timeout" in answer.data[-1]
        else:
            assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")
        assert running.upstream.counts.cut == 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_nothing_is_tried_again_after_the_first_byte(stream: bool) -> None:
    dies = failing(text="one two three four", fault="die_mid_event")
    async with house(dies, upstream=THRICE) as running:
        answer = await ask(running.port, chat(stream=stream))

        assert running.upstream.counts.requests == 1
        assert answer.status == (200 if stream else 502)
        assert answer.whole is not stream


LOST = [{"fault": "die_mid_event"}, {"fault": "no_done", "after": 2}, {"fault": "no_done"}]


@pytest.mark.parametrize(
    "plugins", [[], ["shout"], ["careless"], ["record"]], ids=lambda names: "+".join(names) or "none"
)
@pytest.mark.parametrize("lost", LOST, ids=["dies", "ends early", "has no end mark"])
async def test_a_truncated_stream_raises_in_the_sdk(lost: dict[str, Any], plugins: list[str]) -> None:
    async with house(failing(text="one two three four", **lost), plugins=plugins) as running:
        async with client_of(running, max_retries=0) as client:
            stream = await client.chat.completions.create(model="m", messages=USER, stream=True)
            with pytest.raises(openai.APIError):
                [chunk async for chunk in stream]
        answer = await ask(running.port, chat(stream=True))

        assert not answer.whole
        assert b'"error"' in answer.data[-1]
        assert b"[DONE]" not in answer.body


async def test_a_provider_known_to_send_no_end_mark_is_believed() -> None:
    async with house(failing(text="one two", fault="no_done"), upstream={"done_marker": False}) as running:
        answer = await ask(running.port, chat(stream=True))

        assert answer.whole


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
async def test_named_events_are_broken_off_with_a_named_error(path: str) -> None:
    dies = failing(text="one two three four", fault="die_mid_event")
    async with house(dies) as running:
        answer = await ask(running.port, chat(stream=True, input="x", max_tokens=99), path)

        assert not answer.whole
        assert b"\nevent: error\ndata: " in answer.body


WAITING = {"server": {"keep_alive_comment_s": 0.05}}


@pytest.mark.parametrize("cause", ["plugin", "provider"])
async def test_a_waiting_client_gets_comments(cause: str) -> None:
    plugins = ["slow"] if cause == "plugin" else ["careless"]  # whose upstream call may take as long as it likes
    slow = failing(text="fine now", first_byte_ms=0 if cause == "plugin" else 300)
    async with house(slow, plugins=plugins, **WAITING) as running:
        async with bare(running.port) as client:
            await client.send(post(chat(stream=True)))
            status, headers = await client.head()
            comments = [await client.chunk(), await client.chunk()]
            if cause == "plugin":
                running.plugin(Slow).go.set()
            rest = b""
            while (piece := await client.chunk()) is not None:
                rest += piece

        assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert comments == [b": keep-alive\n\n"] * 2
        assert rest.endswith(b"data: [DONE]\n\n")
        assert rest.count(b"data: {") == running.upstream.counts.writes - 1


async def test_where_no_plugin_makes_the_client_wait_an_errors_status_is_kept() -> None:
    async with house(failing(status=429, first_byte_ms=200), **WAITING) as running:
        answer = await ask(running.port, chat(stream=True))

        assert (answer.status, b"keep-alive" in answer.body) == (429, False)


async def test_the_sdk_accepts_comments() -> None:
    slow = failing(text="fine now", first_byte_ms=200)
    async with house(slow, plugins=["careless"], **WAITING) as running, client_of(running) as client:
        stream = await client.chat.completions.create(model="m", messages=USER, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        assert text == "fine now"


@pytest.mark.parametrize(
    "failure", [{"status": 429, "first_byte_ms": 200}, {"fault": "stall_headers"}], ids=["answers 429", "never answers"]
)
async def test_an_error_after_comments_raises_in_the_sdk(failure: dict[str, Any]) -> None:
    upstream = {"timeouts": {"first_byte_s": 0.4}}
    wait = {"plugins": ["careless"], **WAITING}
    async with house(failing(**failure), upstream=upstream, **wait) as running, client_of(running) as client:
        stream = await client.chat.completions.create(model="m", messages=USER, stream=True)
        with pytest.raises(openai.APIError):
            [chunk async for chunk in stream]
        for path in ("/v1/responses", "/v1/messages"):
            answer = await ask(running.port, chat(stream=True, input="x", max_tokens=9), path)

            assert b": keep-alive" in answer.body
            assert b"event: error\ndata: {" in answer.body, path


async def test_a_client_that_leaves_while_it_waits_is_noticed() -> None:
    async with house(plugins=["slow", "watch"], **WAITING) as running:
        async with bare(running.port) as client:
            await client.send(post(chat(stream=True)))
            await client.head()
            client.abort()
        await running.idle()

        assert running.upstream.counts.requests == 0


async def test_concurrent_failures_are_counted_once_each() -> None:
    async with house(failing(fault="refuse"), upstream=TWICE) as running:
        answers = await asyncio.gather(*(ask(running.port, chat()) for _ in range(20)))
        await running.idle()

        assert {answer.status for answer in answers} <= {502, 503}
        assert running.station().in_flight == 0


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/v1/chat/completions", "[DONE]"),
        ("/v1/chat/completions", "data: [DONE]"),
        ("/v1/completions", "[DONE]"),
        ("/v1/responses", "response.completed"),
        ("/v1/responses", 'event: response.completed "type":"response.completed"'),
        ("/v1/messages", "message_stop"),
        ("/v1/messages", '{"type":"message_stop"}'),
    ],
)
@pytest.mark.parametrize("plugins", [[], ["careless"]], ids=repr)
async def test_an_answer_about_end_marks_has_not_ended(path: str, word: str, plugins: list[str]) -> None:
    """What is said must not be taken for the mark that ends it."""
    cut = failing(pieces=("It ends with ", word, " and", " then"), fault="no_done", after=6)
    async with house(cut, plugins=plugins) as running:
        answer = await ask(running.port, chat(stream=True, prompt="x", input="x", max_tokens=99), path)

        assert word.split('"', maxsplit=1)[0].encode() in answer.body
        assert not answer.whole


@pytest.mark.parametrize("plugins", [[], ["careless"], ["record"]], ids=repr)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
async def test_a_long_last_event_is_an_end(path: str, plugins: list[str]) -> None:
    """The last event of a response repeats all of it."""
    long = failing(pieces=("word " * 40_000, " end"))
    async with house(long, plugins=[*plugins, "watch"]) as running:
        answer = await ask(running.port, chat(stream=True, input="x", max_tokens=99), path)
        await running.idle()
        (exchange,) = running.plugin(Watch).seen

        assert answer.whole
        assert exchange.outcome == "ok"
        if path != "/v1/chat/completions":
            assert (exchange.ledger.output, exchange.ledger.estimated) == (2, False)


async def test_a_provider_that_was_never_reached_costs_nothing() -> None:
    priced = [{"name": "m", "upstream": "up", "price": {"input_usd_per_mtok": 1}}]
    async with house(behind="http://127.0.0.1:9/v1", plugins=["watch"], models=priced) as running:
        answer = await ask(running.port, chat())
        await until(lambda: bool(running.plugin(Watch).seen))
        (seen,) = running.plugin(Watch).seen

        assert (502, 0, 0.0) == (answer.status, seen.ledger.prompt, seen.ledger.spend_usd)


async def test_a_refused_body_on_another_endpoint_is_recorded_as_what_it_was() -> None:
    small = {"body_limit_mb": 0.001}
    async with house("fine", plugins=["watch"], upstream={"relay": True}, server=small) as running:
        answer = await ask(running.port, b"x" * 5000, "/v1/files")
        await until(lambda: bool(running.plugin(Watch).seen))
        (seen,) = running.plugin(Watch).seen

        assert (413, 413, "client_error") == (answer.status, seen.status, seen.outcome)
