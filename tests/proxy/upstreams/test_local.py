"""The local engine behind the upstream's seam, with a process that answers by script."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from predawn.plugins.testing.clock import ManualClock
from predawn.proxy.clock import SystemClock
from predawn.proxy.metrics import Metrics
from predawn.proxy.settings import UpstreamSettings
from predawn.proxy.tasks import Tasks
from predawn.proxy.upstreams.base import EngineUpstream, UpstreamError, UpstreamRequest
from predawn.proxy.upstreams.local import LocalUpstream
from predawn.proxy.wire.fold import fold

WORKER = Path(__file__).parents[2] / "kernels" / "engine" / "scripted_worker.py"
COMMAND = [sys.executable, "-P", str(WORKER)]
spawn = partial(Tasks().spawn, name="test")
FOREVER = "[[la]] forever slowly"


def chat(content="hello", *, tenant="", **members):
    data = {"model": "m", "messages": [{"role": "user", "content": content}], **members}
    return request("chat", data, tenant)


def completion(prompt="hello", **members):
    return request("completions", {"model": "m", "prompt": prompt, **members}, "")


def request(route, data, tenant):
    stream = data.get("stream", False)
    body = json.dumps(data).encode()
    return UpstreamRequest(route, "POST", f"/{route}", "m", body, {}, stream, lambda: data, tenant)


@asynccontextmanager
async def upstream(path="scripted", *, clock=None, metrics=None, **settings):
    given = UpstreamSettings(name="local", kind="local", path=str(path), **settings)
    made = LocalUpstream(given, clock or SystemClock(), command=COMMAND)
    if metrics is not None:
        made.meter(metrics.engine("local"))
    await made.open()
    try:
        yield made
    finally:
        await made.aclose()


async def body_of(reply):
    try:
        return json.loads(b"".join([data async for data in reply.source]))
    finally:
        await reply.source.aclose()


async def events_of(reply):
    try:
        text = b"".join([data async for data in reply.source]).decode()
    finally:
        await reply.source.aclose()
    *events, end = [part.removeprefix("data: ") for part in text.split("\n\n")[:-1]]
    assert end == "[DONE]"
    return [json.loads(event) for event in events]


async def test_a_chat_is_answered_in_openais_words():
    async with upstream() as local:
        reply = await local.send(chat("[[so</think>4]]", enable_thinking=True))
        body = await body_of(reply)

    assert (reply.status, body["object"], body["model"]) == (200, "chat.completion", "m")
    assert body["id"].startswith("chatcmpl-")
    assert body["system_fingerprint"] == "fp_script"
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "4", "refusal": None, "reasoning_content": "so"},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert body["usage"]["completion_tokens"] == 5
    assert body["usage"]["completion_tokens_details"] == {"reasoning_tokens": 3}
    assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + 5


async def test_a_stream_has_an_event_for_each_token():
    async with upstream() as local:
        events = await events_of(await local.send(chat("[[s</think>45]]", enable_thinking=True, stream=True)))

    assert [event["choices"][0]["delta"] for event in events] == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "s"},
        {"content": "4"},
        {"content": "5"},
        {},
    ]
    assert [event["choices"][0]["finish_reason"] for event in events] == [None] * 4 + ["stop"]
    assert "usage" not in events[0]


@pytest.mark.parametrize("members", [{}, {"logprobs": True, "top_logprobs": 2}, {"n": 3}])
async def test_a_stream_says_what_a_whole_body_says(members):
    content = "[[<think>so it is</think>\n\nfour é]]"
    async with upstream() as local:
        whole = await body_of(await local.send(chat(content, **members)))
        options = {"stream": True, "stream_options": {"include_usage": True}}
        events = await events_of(await local.send(chat(content, **members, **options)))

    for name in ("id", "created"):
        whole.pop(name)
    folded = {name: value for name, value in fold(events, "chat").items() if name in whole}
    for choice in whole["choices"]:
        del choice["message"]["refusal"]
    assert folded == whole
    assert [event["usage"] is None for event in events] == [True] * (len(events) - 1) + [False]


async def test_completions_stream_what_they_say_whole():
    asked = {"prompt": ["[[one]]", "[[é]]"], "n": 2, "logprobs": 1}
    async with upstream() as local:
        whole = await body_of(await local.send(completion(**asked)))
        events = await events_of(await local.send(completion(**asked, stream=True)))

    assert [choice["text"] for choice in whole["choices"]] == ["one", "one", "é", "é"]
    assert whole["choices"][2]["logprobs"] == {
        "tokens": ["bytes:\\xc3", "bytes:\\xa9"],
        "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [{"bytes:\\xc3": -0.5}, {"bytes:\\xa9": -0.5}],
        "text_offset": [0, 0],
    }
    assert fold(events, "completions")["choices"] == whole["choices"]


async def test_log_probabilities_have_openais_shape():
    async with upstream() as local:
        body = await body_of(await local.send(chat("[[<think>s</think>4]]", logprobs=True, top_logprobs=2)))
    logprobs = body["choices"][0]["logprobs"]

    assert logprobs["content"] == [
        {
            "token": "4",
            "logprob": -0.5,
            "bytes": [52],
            "top_logprobs": [
                {"token": "4", "logprob": -0.5, "bytes": [52]},
                {"token": "5", "logprob": -1.5, "bytes": [53]},
            ],
        }
    ]
    assert [score["token"] for score in logprobs["reasoning_content"]] == ["s"]


@pytest.mark.parametrize(
    ("asked", "status", "code", "param"),
    [
        (chat(temperature=3), 400, None, "temperature"),
        (chat("a" * 500), 400, "context_length_exceeded", "messages"),
        (chat("a" * 200_000), 400, "context_length_exceeded", None),
        (chat(tools=[{"type": "function"}]), 400, "unsupported_parameter", "tools"),
        (completion(suffix="end"), 400, "unsupported_parameter", "suffix"),
    ],
)
async def test_a_refusal_is_a_reply(asked, status, code, param):
    async with upstream() as local:
        reply = await local.send(asked)
        error = (await body_of(reply))["error"]

    assert (reply.status, error["code"], error["param"]) == (status, code, param)
    assert error["type"] == "invalid_request_error"


async def begun(reply):
    """The reply, once it has said something."""
    await anext(aiter(reply.source))
    return reply


async def test_too_many_requests_are_refused_with_a_time_to_come_back():
    async with upstream(engine={"max_batch": 1, "max_waiting": 1}) as local:
        running = await begun(await local.send(chat(FOREVER, stream=True)))
        waiting = spawn(local.send(chat()))
        while local.load < 2:
            await asyncio.sleep(0.01)
        reply = await local.send(chat())
        error = (await body_of(reply))["error"]
        await running.source.aclose()

        assert (await waiting).status == 200

    assert (reply.status, error["type"], error["code"]) == (429, "rate_limit_error", "rate_limit_exceeded")
    assert (reply.headers["retry-after"], reply.headers["retry-after-ms"]) == ("3", "2500")


async def test_a_crowd_is_refused_unread():
    async with upstream(engine={"max_batch": 1, "max_waiting": 1}) as local:
        replies = [spawn(local.send(chat(FOREVER, stream=True))) for _ in range(50)]
        await asyncio.sleep(0)
        refused = [reply for reply in replies if reply.done()]
        statuses = {reply.result().status for reply in refused}
        for reply in replies:
            reply.cancel()
        await asyncio.wait(replies)

    assert (len(refused), statuses) == (46, {429})


async def test_a_waiting_client_that_leaves_makes_room():
    async with upstream(engine={"max_batch": 1, "max_waiting": 1}) as local:
        running = await begun(await local.send(chat(FOREVER, stream=True)))
        waiting = spawn(local.send(chat()))
        while local.load < 2:
            await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        next_one = spawn(local.send(chat("[[4]]")))
        await asyncio.sleep(0)
        await running.source.aclose()

        assert (await body_of(await next_one))["choices"][0]["message"]["content"] == "4"
        assert local.load == 0


async def test_closing_a_stream_cancels_it_in_the_engine():
    metrics = Metrics(CollectorRegistry())
    async with upstream(metrics=metrics) as local:
        reply = await begun(await local.send(chat(FOREVER, stream=True)))
        running = metrics.engine_requests.of("local", "running")
        while not running.value:
            await asyncio.sleep(0.01)
        await reply.source.aclose()
        while running.value:
            await asyncio.sleep(0.01)

        assert local.load == 0


async def test_an_engine_that_dies_breaks_its_streams_off():
    async with upstream() as local:
        reply = await local.send(chat("[[abcdef]] die", stream=True))
        with pytest.raises(UpstreamError, match="the answer broke off") as broken:
            await events_of(reply)
        assert local.condition == "restarting"

        again = await body_of(await local.send(chat("[[back]]")))

    assert (broken.value.reason, broken.value.sent_nothing) == ("crashed", False)
    assert again["choices"][0]["message"]["content"] == "back"


async def test_a_request_that_may_have_ended_the_engine_is_left_to_a_fallback():
    async with upstream() as local:
        with pytest.raises(UpstreamError) as failed:
            await local.send(chat("[[abcdef]] die"))

    assert (failed.value.reason, failed.value.sent_nothing) == ("crashed", True)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked at in /proc")
async def test_an_engine_that_hangs_is_given_up_and_what_it_never_saw_is_worth_another_try():
    clock = ManualClock()
    async with upstream(clock=clock, engine={"hang_s": 8}) as local:
        reply = await begun(await local.send(chat(FOREVER, stream=True)))
        pid = local._engine.pid
        os.kill(pid, signal.SIGSTOP)
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            await asyncio.sleep(0.01)
        unseen = spawn(local.send(chat()))
        await clock.advance(7)
        before = local.condition
        await clock.advance(4)
        after = local.condition
        with pytest.raises(UpstreamError, match="the answer broke off: the engine's process ended") as broken:
            await events_of(reply)
        with pytest.raises(UpstreamError) as lost:
            await unseen

    assert (before, after) == ("ready", "restarting")
    assert (broken.value.reason, broken.value.sent_nothing) == ("crashed", False)
    assert (lost.value.reason, lost.value.sent_nothing) == ("connect", True)


async def test_an_engine_that_does_not_come_back_is_not_waited_for_long(tmp_path):
    clock = ManualClock()
    async with upstream(tmp_path / "once-only", clock=clock, timeouts={"connect_s": 0.05}) as local:
        with pytest.raises(UpstreamError):
            await local.send(chat("[[abcdef]] die"))
        with pytest.raises(UpstreamError, match="the engine is restarting") as failed:
            await local.send(chat())

    assert failed.value.reason == "connect"


@pytest.mark.parametrize("stream", [True, False])
async def test_an_engine_that_says_nothing_is_given_up(stream):
    async with upstream(timeouts={"first_byte_s": 0.05}) as local:
        with pytest.raises(UpstreamError) as failed:
            await local.send(chat("hang", stream=stream))

        assert local.load == 0
    assert (failed.value.reason, failed.value.sent_nothing) == ("timeout_ttft", True)


async def test_an_engine_that_falls_silent_is_given_up():
    async with upstream(timeouts={"idle_s": 0.05}) as local:
        reply = await local.send(completion("hang", stream=True, echo=True))
        with pytest.raises(UpstreamError) as failed:
            await events_of(reply)

    assert (failed.value.reason, failed.value.sent_nothing) == ("timeout_idle", False)


async def test_it_tells_its_model_and_its_condition():
    async with upstream() as local:
        told = await local.models(), local.condition, isinstance(local, EngineUpstream)

    assert told == (["scripted"], "ready", True)
    assert local.condition == "stopped"


async def test_a_model_that_cannot_be_loaded_keeps_the_server_from_starting():
    with pytest.raises(UpstreamError, match="upstream 'local': the weights are broken"):
        async with upstream("broken"):
            pass


async def test_it_speaks_what_the_settings_leave_of_chat_and_completions():
    chat_only = UpstreamSettings(name="local", kind="local", routes=["chat", "embeddings"])

    assert LocalUpstream(chat_only, SystemClock()).routes == {"chat"}
    assert LocalUpstream(UpstreamSettings(name="local", kind="local"), SystemClock()).routes == {"chat", "completions"}


async def test_how_busy_it_is_can_be_measured():
    metrics = Metrics(CollectorRegistry())
    async with upstream(metrics=metrics) as local:
        await body_of(await local.send(chat("[[four]]")))
        decoded = metrics.engine_tokens.of("local", "decode")
        while decoded.value < 5:
            await asyncio.sleep(0.01)

        assert metrics.engine_kv_pages.of("local", "total").value == 64
    assert metrics.engine_kv_pages.of("local", "total").value == 0


def test_nothing_heavy_is_imported_here():
    """Torch and its kin live in the engine's process; the proxy's event loop shall never wait for them."""
    program = "import sys, predawn.proxy.upstreams.local; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True).stdout

    assert {"torch", "numpy", "tokenizers", "jinja2", "triton"} & set(loaded.split()) == set()
