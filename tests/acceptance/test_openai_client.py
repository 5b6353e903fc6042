"""What users bring: the official `openai` client, with nothing changed but its `base_url`."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel
from tests.acceptance.house import CLIENT_KEY, UPSTREAM_KEY, House, house, until

USER: Any = [{"role": "user", "content": "hello"}]
LOOKUP: Any = {
    "type": "function",
    "function": {
        "name": "lookup",
        "strict": True,
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CLOCK: Any = {
    "type": "function",
    "function": {"name": "clock", "strict": True, "parameters": {"type": "object", "properties": {}}},
}


def script(text: str) -> dict[str, str]:
    """A request header that tells the provider how to answer."""
    return {"x-script": text}


def connected(running: House, **options: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(**{"base_url": running.base_url, "api_key": CLIENT_KEY, "max_retries": 0, **options})


async def test_a_chat_is_answered(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="m", messages=USER)

    assert answer.choices[0].message.content == "hello there"
    assert answer.usage
    assert answer.usage.completion_tokens == 2
    assert answer.id.startswith("chatcmpl-")
    assert answer.system_fingerprint == "fp_scripted"
    assert answer.created == 1_700_000_000


async def test_the_blocking_client_is_answered(served: House) -> None:
    def talk() -> tuple[str | None, str]:
        with openai.OpenAI(base_url=served.base_url, api_key=CLIENT_KEY, max_retries=0) as client:
            whole = client.chat.completions.create(model="m", messages=USER)
            stream = client.chat.completions.create(model="m", messages=USER, stream=True)
            return whole.choices[0].message.content, "".join(c.choices[0].delta.content or "" for c in stream)

    assert await asyncio.to_thread(talk) == ("hello there", "hello there")


async def test_a_stream_arrives_piece_by_piece(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="m", messages=USER, stream=True)
    chunks = [chunk async for chunk in stream]

    assert [c.choices[0].delta.content for c in chunks if c.choices[0].delta.content] == ["hello", " there"]
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_the_first_piece_does_not_wait_for_the_last() -> None:
    async with house() as running, connected(running) as client:
        stalls = script("stall_mid_stream, after=2")
        stream = await client.chat.completions.create(model="m", messages=USER, stream=True, extra_headers=stalls)
        async with asyncio.timeout(3):
            first = await anext(aiter(stream))
        await stream.close()

        assert first.choices[0].delta.role == "assistant"


async def test_the_accumulating_stream_helper_works(client: openai.AsyncOpenAI) -> None:
    async with client.chat.completions.stream(model="m", messages=USER) as stream:
        kinds = {event.type async for event in stream}
        final = await stream.get_final_completion()

    assert final.choices[0].message.content == "hello there"
    assert "content.delta" in kinds


async def test_a_tool_is_called() -> None:
    async with house() as running, connected(running) as client:
        answer = await client.chat.completions.create(model="m", messages=USER, tools=[LOOKUP], tool_choice="required")
        (call,) = answer.choices[0].message.tool_calls or ()

        assert call.type == "function"
        assert call.function.name == "lookup"
        assert "city" in json.loads(call.function.arguments)
        assert answer.choices[0].finish_reason == "tool_calls"


async def test_parallel_tool_calls_are_streamed_apart() -> None:
    async with house() as running, connected(running) as client:
        async with client.chat.completions.stream(
            model="m", messages=USER, tools=[LOOKUP, CLOCK], parallel_tool_calls=True
        ) as stream:
            final = await stream.get_final_completion()
        calls = final.choices[0].message.tool_calls or []

        assert [call.function.name for call in calls] == ["lookup", "clock"]
        assert len({call.id for call in calls}) == 2
        assert all(isinstance(json.loads(call.function.arguments), dict) for call in calls)


async def test_a_tools_result_goes_back() -> None:
    async with house("It rains.") as running, connected(running) as client:
        first = await client.chat.completions.create(
            model="m", messages=USER, tools=[LOOKUP], extra_headers=script('{"tool_calls": [{"name": "lookup"}]}')
        )
        message = first.choices[0].message
        assert message.tool_calls
        said: Any = [
            *USER,
            message.model_dump(exclude_none=True),
            {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "rain"},
        ]
        second = await client.chat.completions.create(model="m", messages=said, tools=[LOOKUP])

        assert second.choices[0].message.content == "It rains."
        assert running.upstream.requests[-1].json["messages"][-1]["content"] == "rain"


class City(BaseModel):
    name: str
    people: int


async def test_a_response_format_is_obeyed() -> None:
    async with house() as running, connected(running) as client:
        answer = await client.chat.completions.parse(model="m", messages=USER, response_format=City)

        assert isinstance(answer.choices[0].message.parsed, City)


async def test_several_choices_come_back() -> None:
    async with house() as running, connected(running) as client:
        whole = await client.chat.completions.create(model="m", messages=USER, n=3)
        stream = await client.chat.completions.create(model="m", messages=USER, n=3, stream=True)
        streamed = {choice.index async for chunk in stream for choice in chunk.choices}

        assert [choice.index for choice in whole.choices] == [0, 1, 2]
        assert len({choice.message.content for choice in whole.choices}) == 3
        assert streamed == {0, 1, 2}


async def test_logprobs_come_back_for_each_token(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="m", messages=USER, logprobs=True, top_logprobs=2)
    found = answer.choices[0].logprobs

    assert found
    assert [token.token for token in found.content or ()] == ["hello", " there"]
    assert [len(token.top_logprobs) for token in found.content or ()] == [2, 2]


async def test_a_seed_and_unknown_members_reach_the_provider(served: House, client: openai.AsyncOpenAI) -> None:
    await client.chat.completions.create(
        model="m", messages=USER, seed=7, stop=["User:"], extra_body={"min_p": 0.05, "chat_template_kwargs": {"a": 1}}
    )
    sent = served.upstream.requests[-1].json

    assert (sent["seed"], sent["stop"], sent["min_p"]) == (7, ["User:"], 0.05)
    assert sent["chat_template_kwargs"] == {"a": 1}


async def test_image_and_audio_parts_stay_parts(served: House, client: openai.AsyncOpenAI) -> None:
    parts: Any = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": base64.b64encode(b"RIFF").decode(), "format": "wav"}},
        {"type": "file", "file": {"file_id": "file-1"}},
    ]
    await client.chat.completions.create(model="m", messages=[{"role": "user", "content": parts}])

    assert served.upstream.requests[-1].json["messages"][0]["content"] == parts


async def test_an_answer_that_says_user_is_not_cut() -> None:
    said = "User: hello\nAssistant: hello\nUser: bye"
    async with house(said) as running, connected(running) as client:
        answer = await client.chat.completions.create(model="m", messages=USER)
        stream = await client.chat.completions.create(model="m", messages=USER, stream=True)
        streamed = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        assert answer.choices[0].message.content == streamed == said


async def test_max_completion_tokens_gets_no_companion(served: House, client: openai.AsyncOpenAI) -> None:
    await client.chat.completions.create(model="m", messages=USER, max_completion_tokens=5)

    assert "max_tokens" not in served.upstream.requests[-1].json


async def test_a_clamp_lowers_the_limit_where_it_stands() -> None:
    models = [{"name": "m", "upstream": "up", "max_output_tokens": 3}]
    async with house(models=models) as running, connected(running) as client:
        answer = await client.chat.completions.create(model="m", messages=USER, max_completion_tokens=50)
        sent = running.upstream.requests[-1].json

        assert sent["max_completion_tokens"] == 3
        assert "max_tokens" not in sent
        assert answer.usage
        assert answer.usage.completion_tokens == 3


async def test_embeddings_come_back(client: openai.AsyncOpenAI) -> None:
    packed = await client.embeddings.create(model="m", input=["a", "b"], dimensions=5)
    plain = await client.embeddings.create(model="m", input=["a", "b"], dimensions=5, encoding_format="float")

    assert [len(item.embedding) for item in packed.data] == [5, 5]
    assert [item.embedding for item in packed.data] == [item.embedding for item in plain.data]


async def test_legacy_completions_come_back_and_stream(client: openai.AsyncOpenAI) -> None:
    whole = await client.completions.create(model="m", prompt="hello")
    stream = await client.completions.create(model="m", prompt="hello", stream=True)
    streamed = "".join([chunk.choices[0].text async for chunk in stream])

    assert whole.choices[0].text == streamed == "hello there"


async def test_responses_come_back_and_stream(client: openai.AsyncOpenAI) -> None:
    whole = await client.responses.create(model="m", input="hello")
    async with client.responses.stream(model="m", input="hello") as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()

    assert whole.output_text == final.output_text == "hello there"
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")


async def test_models_are_the_aliases_of_the_settings() -> None:
    models = [{"name": name, "upstream": "up", "model": "Qwen/Qwen3-8B"} for name in ("qwen", "org/small:free")]
    async with house(models=models) as running, connected(running) as client:
        listed = [model.id async for model in client.models.list()]
        one = await client.models.retrieve("org/small:free")
        await client.chat.completions.create(model="qwen", messages=USER)
        with pytest.raises(openai.NotFoundError) as caught:
            await client.models.retrieve("qwem")

        assert listed == ["qwen", "org/small:free"]
        assert one.id == "org/small:free"
        assert running.upstream.requests[-1].json["model"] == "Qwen/Qwen3-8B"
        assert "qwen" in caught.value.message


async def test_an_unknown_model_is_404_and_names_the_nearest() -> None:
    models = [{"name": "qwen-large", "upstream": "up"}]
    async with house(models=models) as running, connected(running) as client:
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(model="qwen-larg", messages=USER)

        assert caught.value.code == "model_not_found"
        assert caught.value.param == "model"
        assert "qwen-large" in caught.value.message
        assert caught.value.request_id
        assert running.upstream.counts.requests == 0


STATUSES = [
    (400, openai.BadRequestError),
    (401, openai.AuthenticationError),
    (403, openai.PermissionDeniedError),
    (404, openai.NotFoundError),
    (409, openai.ConflictError),
    (413, openai.APIStatusError),
    (422, openai.UnprocessableEntityError),
    (429, openai.RateLimitError),
    (500, openai.InternalServerError),
    (502, openai.InternalServerError),
    (503, openai.InternalServerError),
    (504, openai.InternalServerError),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("status", "kind"), STATUSES)
async def test_a_providers_error_arrives_as_it_was(
    client: openai.AsyncOpenAI, status: int, kind: type[openai.APIStatusError], stream: bool
) -> None:
    body = {"error": {"message": "as it is", "type": "odd_type", "param": "p", "code": "c", "extra": [1]}}
    told = json.dumps(
        {"status": status, "body": body, "headers": {"retry-after": "7", "x-ratelimit-limit-requests": "9"}}
    )
    with pytest.raises(kind) as caught:
        await client.chat.completions.create(
            model="m", messages=USER, stream=stream, extra_headers={**script(told), "x-request-id": "mine-1"}
        )
    error = caught.value

    assert error.status_code == status
    assert error.body == body["error"]
    assert error.response.headers["retry-after"] == "7"
    assert error.response.headers["x-ratelimit-limit-requests"] == "9"
    assert error.request_id == "mine-1"
    assert error.response.headers["x-upstream-request-id"].startswith("req_scripted_")


async def test_a_provider_that_is_too_slow_is_504(served: House) -> None:
    quick = {"timeouts": {"connect_s": 1, "first_byte_s": 0.2, "idle_s": 0.2}}
    async with house("x", upstream=quick) as running, connected(running) as client:
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError) as caught:
                await client.chat.completions.create(
                    model="m", messages=USER, stream=stream, extra_headers=script("stall_headers")
                )

            assert caught.value.status_code == 504
            assert caught.value.code == "upstream_timeout"
        await running.idle()


async def test_a_client_that_gives_up_cancels_the_provider() -> None:
    async with house() as running, connected(running, timeout=0.2) as client:
        with pytest.raises(openai.APITimeoutError):
            await client.chat.completions.create(model="m", messages=USER, extra_headers=script("stall_headers"))
        await running.idle()

        assert running.upstream.counts.cut == 1


async def test_leaving_a_stream_cancels_the_provider() -> None:
    async with house() as running, connected(running) as client:
        stalls = script("stall_mid_stream, after=2")
        stream = await client.chat.completions.create(model="m", messages=USER, stream=True, extra_headers=stalls)
        await anext(aiter(stream))
        assert running.upstream.counts.in_flight == 1
        await stream.close()
        await running.idle()

        assert running.upstream.counts.cut == 1


async def test_control_stays_here(served: House, client: openai.AsyncOpenAI) -> None:
    await client.chat.completions.create(
        model="m",
        messages=USER,
        extra_body={"predawn": {"cache": True}, "keep": {"predawn": 1}},
        extra_headers={"x-predawn-cache": "true", "X-Predawn-Trace": "1"},
    )
    sent = served.upstream.requests[-1]

    assert "predawn" not in sent.json
    assert sent.json["keep"] == {"predawn": 1}
    assert not [name for name in sent.headers if name.lower().startswith("x-predawn")]


async def test_the_clients_key_never_goes_upstream(served: House) -> None:
    async with connected(
        served, default_headers={"x-api-key": CLIENT_KEY, "api-key": CLIENT_KEY, "cookie": CLIENT_KEY}
    ) as client:
        await client.chat.completions.create(model="m", messages=USER)
    sent = served.upstream.requests[-1]

    assert sent.headers["Authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert CLIENT_KEY not in repr(dict(sent.headers))
    assert CLIENT_KEY.encode() not in sent.body


async def test_usage_of_a_stream_comes_only_if_asked(client: openai.AsyncOpenAI, served: House) -> None:
    asked = await client.chat.completions.create(
        model="m", messages=USER, stream=True, stream_options={"include_usage": True}
    )
    with_usage = [chunk async for chunk in asked]
    plain = [chunk async for chunk in await client.chat.completions.create(model="m", messages=USER, stream=True)]

    assert with_usage[-1].choices == []
    assert with_usage[-1].usage
    assert with_usage[-1].usage.completion_tokens == 2
    assert all(chunk.usage is None and chunk.choices for chunk in plain)
    assert "stream_options" not in served.upstream.requests[-1].json


@pytest.mark.parametrize("plugins", [["record"], ["record", "shout"], ["careless", "record"]], ids="+".join)
async def test_accounting_asks_for_usage_and_hides_it(plugins: list[str]) -> None:
    async with house("hello there", plugins=plugins) as running, connected(running) as client:
        stream = await client.chat.completions.create(
            model="m", messages=USER, stream=True, extra_headers={"x-request-id": "booked"}
        )
        chunks = [chunk async for chunk in stream]
        await running.idle()
        kept: Any = await client.get("/exchanges/booked", cast_to=object)

        assert running.upstream.requests[-1].json["stream_options"] == {"include_usage": True}
        assert all(chunk.choices and chunk.usage is None for chunk in chunks)
        assert (kept["ledger"]["prompt"], kept["ledger"]["output"]) == (1, 2)
        assert kept["ledger"]["estimated"] is False
        assert kept["outcome"] == "ok"


async def test_accounting_keeps_other_stream_options_and_usage_that_was_asked_for() -> None:
    async with house("hello there", plugins=["record"]) as running, connected(running) as client:
        options: Any = {"include_usage": False, "include_obfuscation": False}
        stream = await client.chat.completions.create(model="m", messages=USER, stream=True, stream_options=options)
        hidden = [chunk async for chunk in stream]
        sent = running.upstream.requests[-1].json["stream_options"]
        stream = await client.chat.completions.create(
            model="m", messages=USER, stream=True, stream_options={"include_usage": True}
        )
        shown = [chunk async for chunk in stream]

        assert sent == {"include_usage": True, "include_obfuscation": False}
        assert all(chunk.choices for chunk in hidden)
        assert shown[-1].usage


async def test_an_error_of_the_server_itself_has_the_apis_shape(served: House, client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="m", messages=USER, n=1000)
    error: Any = caught.value.body

    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == "n"
    assert caught.value.request_id
    assert served.upstream.counts.requests == 0


async def test_many_clients_get_their_own_answers() -> None:
    def echo(received: Any) -> str:
        return f"you said {received.text}"

    async with house(choose=echo) as running, connected(running) as client:

        async def talk(number: int) -> bool:
            said: Any = [{"role": "user", "content": f"number {number}"}]
            stream = await client.chat.completions.create(model="m", messages=said, stream=True)
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            return text == f"you said number {number}"

        right = await asyncio.gather(*(talk(number) for number in range(40)))
        await until(lambda: running.is_idle)

        assert all(right)
