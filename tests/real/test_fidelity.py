"""The same request to the model's server and through Predawn: the same bytes, whatever that server answers."""

import json
import re

import aiohttp
import pytest
from tests.real.requests_made import CITY, FRANCE, MODEL, chat, completion, tools

pytestmark = pytest.mark.real
PREFILL = [FRANCE, {"role": "assistant", "content": "The capital of"}]
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
# What is new each time, or measured: ids, the time of day, and how long it took.
_VARYING = (
    (re.compile(rb'"(id|item_id|call_id)":"[^"]*"'), rb'"\1":"-"'),
    (re.compile(rb'"(created|created_at|completed_at)":\d+'), rb'"\1":0'),
    (re.compile(rb',?"timings":\{[^}]*\}'), rb""),
)

ANSWERED = {
    "chat": ("/chat/completions", chat()),
    "chat with an unknown field": ("/chat/completions", chat(mystery={"a": [1, None]})),
    "n": ("/chat/completions", chat(n=2)),
    "logprobs": ("/chat/completions", chat(logprobs=True, top_logprobs=2)),
    "stop": ("/chat/completions", chat(stop=["capital"])),
    "stop that never comes": ("/chat/completions", chat(stop=["zebra", "giraffe"])),
    "sampling with a seed": ("/chat/completions", chat(temperature=1.0, top_p=0.9)),
    "tools": ("/chat/completions", tools()),
    "json_schema": ("/chat/completions", chat(response_format=CITY, max_tokens=24)),
    "json_object": ("/chat/completions", chat(response_format={"type": "json_object"}, max_tokens=12)),
    "prefill": ("/chat/completions", chat(messages=PREFILL)),
    "completion": ("/completions", completion()),
    "completion with logprobs and echo": ("/completions", completion(logprobs=2, echo=True)),
    "completion of two prompts": ("/completions", completion(prompt=["One, two,", "Red, green,"])),
    "embeddings": ("/embeddings", {"model": MODEL, "input": ["dawn", "dusk"]}),
    "embeddings as base64": ("/embeddings", {"model": MODEL, "input": "dawn", "encoding_format": "base64"}),
    "responses": ("/responses", {"model": MODEL, "input": "Hello", "max_output_tokens": 4, "temperature": 0}),
    "messages": ("/messages", {"model": MODEL, "messages": [FRANCE], "max_tokens": 4, "temperature": 0}),
}
STREAMS = {
    "chat": ("/chat/completions", chat(**STREAMED)),
    "chat without usage": ("/chat/completions", chat(stream=True)),
    "logprobs": ("/chat/completions", chat(logprobs=True, top_logprobs=2, **STREAMED)),
    "tools": ("/chat/completions", tools(**STREAMED)),
    "json_schema": ("/chat/completions", chat(response_format=CITY, max_tokens=24, **STREAMED)),
    "prefill": ("/chat/completions", chat(messages=PREFILL, **STREAMED)),
    "completion": ("/completions", completion(**STREAMED)),
    "responses": (
        "/responses",
        {"model": MODEL, "input": "Hello", "max_output_tokens": 4, "temperature": 0, "stream": True},
    ),
    "messages": (
        "/messages",
        {"model": MODEL, "messages": [FRANCE], "max_tokens": 4, "temperature": 0, "stream": True},
    ),
}
REFUSED = {
    "more choices than the server has slots": ("/chat/completions", chat(n=3)),
    "messages that are none": ("/chat/completions", chat(messages="hello")),
    "a schema that is none": (
        "/chat/completions",
        chat(response_format={"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}}),
    ),
    "a prompt longer than the context": ("/completions", completion(prompt="dawn " * 1500)),
    "an endpoint that is off": ("/rerank", {"model": MODEL, "query": "x", "documents": ["a"]}),
}


@pytest.fixture
async def session():
    # The model's server hangs up after each stream without saying so: a kept connection would fail now and then.
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60)) as made:
        yield made


async def post(session, base_url, path, body):
    """Status, content type and body of an answer, without what varies."""
    async with session.post(
        base_url + path, data=json.dumps(body), headers={"content-type": "application/json"}
    ) as answer:
        raw = await answer.read()
        for pattern, replacement in _VARYING:
            raw = pattern.sub(replacement, raw)
        return answer.status, answer.content_type, raw


async def compared(session, model, server, path, body):
    """The server's own answer and the one through Predawn, both with the prompt in its cache."""
    await post(session, model.base_url, path, body)
    direct = await post(session, model.base_url, path, body)
    return direct, await post(session, server.base_url, path, body)


@pytest.mark.parametrize("case", ANSWERED)
async def test_an_answer_passes_byte_for_byte(session, model, plain, case):
    direct, proxied = await compared(session, model, plain, *ANSWERED[case])

    assert direct[0] == 200, direct
    assert proxied == direct


@pytest.mark.parametrize("case", STREAMS)
async def test_a_stream_passes_byte_for_byte(session, model, plain, case):
    direct, proxied = await compared(session, model, plain, *STREAMS[case])

    assert direct[:2] == (200, "text/event-stream"), direct
    assert proxied == direct


@pytest.mark.parametrize("case", STREAMS)
async def test_keeping_a_ledger_changes_no_byte_of_a_stream(session, model, recorded, case):
    direct, proxied = await compared(session, model, recorded, *STREAMS[case])

    assert proxied == direct


async def test_two_choices_in_one_stream_pass_event_by_event(session, model, plain):
    """The server writes both at once, in an order that varies, and reports the usage twice."""
    direct, proxied = await compared(session, model, plain, "/chat/completions", chat(n=2, max_tokens=3, **STREAMED))

    assert sorted(proxied[2].split(b"\n\n")) == sorted(direct[2].split(b"\n\n"))
    assert proxied[2].count(b'"usage"') == 2


@pytest.mark.parametrize("case", REFUSED)
async def test_a_refusal_passes_byte_for_byte(session, model, plain, case):
    direct, proxied = await compared(session, model, plain, *REFUSED[case])

    assert direct[0] >= 400, direct
    assert proxied == direct


async def test_an_alias_is_all_that_differs(session, model, plain):
    _, _, direct = await post(session, model.base_url, "/chat/completions", chat())
    _, _, direct = await post(session, model.base_url, "/chat/completions", chat())
    _, _, proxied = await post(session, plain.base_url, "/chat/completions", chat(model="alias"))

    assert proxied == direct
