"""`redact`: what a client puts together from the filtered chunks is the masked answer, in each dialect."""

import json
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from predawn.plugins import Chunk, Exchange, RequestError
from predawn.plugins.redact import RedactPlugin, RedactSettings
from predawn.plugins.redact.masker import Masker
from predawn.proxy.relay import filtered
from predawn.proxy.wire.fold import BodyChunk, body_of, fold
from predawn.proxy.wire.transcript import Transcript

SECRET = "bob@example.com"
PLUGIN = RedactPlugin(RedactSettings())


def masked(text):
    return "".join(segment.shown for segment in Masker(PLUGIN.settings.rules, 256).finish(text))


def sse(data, event=None, *, is_last=False):
    name = f"event: {event}\n" if event else ""
    return Chunk(f"{name}data: {json.dumps(data)}\n\n".encode(), event=event, is_last=is_last)


DONE = Chunk(b"data: [DONE]\n\n", is_last=True)


def run(chunks, route="chat", plugin=PLUGIN):
    """The chunks after the filter, and the exchange."""
    exchange = Exchange(b"{}", route=route)
    function = plugin.chunk_filter(exchange)
    return [item for chunk in chunks for item in filtered(chunk, (function,))], exchange


def said(chunks, route="chat"):
    """What a client reads, by lane."""
    transcript = Transcript(route)
    for chunk in chunks:
        if chunk.data is not None:
            transcript.read(msgspec.json.decode(chunk.raw.partition(b"data: ")[2]))
    return {(lane["group"], lane["kind"], lane["part"]): lane["text"] for lane in transcript.lanes}


def delta(index=0, finish=None, logprobs=None, **members):
    return sse(
        {
            "id": "c",
            "object": "chat.completion.chunk",
            "model": "m",
            "choices": [{"index": index, "delta": members, "logprobs": logprobs, "finish_reason": finish}],
        }
    )


def pieces(text, source):
    while text:
        size = source.randint(1, 5)
        yield text[:size]
        text = text[size:]


prose = st.lists(
    st.sampled_from(
        [SECRET, "sk-abcdefghijklmnopqrstuv", "4111 1111 1111 1111", " ", "a", "@", "hello", "\n", "\u00e9"]
    ),
    max_size=8,
).map("".join)
KINDS = ("content", "refusal", "reasoning_content", "reasoning")


@given(st.dictionaries(st.tuples(st.integers(0, 2), st.sampled_from(KINDS)), prose, max_size=5), st.randoms())
@settings(max_examples=150)
def test_interleaved_lanes_are_each_masked_as_a_whole(lanes, source):
    queues = {lane: list(pieces(text, source)) for lane, text in lanes.items()}
    chunks = []
    while any(queues.values()):
        lane = source.choice([lane for lane, queue in queues.items() if queue])
        chunks.append(delta(lane[0], **{lane[1]: queues[lane].pop(0)}))
    chunks += [delta(index, "stop") for index in range(3)]
    out, _ = run([*chunks, DONE])

    assert {(*lane, 0): masked(text) for lane, text in lanes.items() if masked(text)} == {
        lane: text for lane, text in said(out).items() if text
    }
    assert DONE is out[-1]


@given(st.lists(prose, min_size=1, max_size=3), st.randoms())
@settings(max_examples=100)
def test_tool_arguments_stay_json_with_masked_strings(values, source):
    chunks = []
    for part, value in enumerate(values):
        chunks.append(delta(tool_calls=[{"index": part, "id": f"t{part}", "function": {"name": "f", "arguments": ""}}]))
        chunks += [
            delta(tool_calls=[{"index": part, "function": {"arguments": piece}}])
            for piece in pieces(json.dumps({"to": value, "n": [1, 2.5]}), source)
        ]
    out, _ = run([*chunks, delta(0, "tool_calls"), DONE])
    body = fold([chunk.data for chunk in out if chunk.data], "chat")
    arguments = [json.loads(call["function"]["arguments"]) for call in body["choices"][0]["message"]["tool_calls"]]

    assert [{"to": masked(value), "n": [1, 2.5]} for value in values] == arguments


@given(prose, st.randoms(), st.sampled_from(["stop", None]))
@settings(max_examples=60)
def test_completions_are_masked_even_without_a_finish(text, source, finish):
    chunks = [sse({"choices": [{"index": 1, "text": piece, "finish_reason": None}]}) for piece in pieces(text, source)]
    end = [sse({"choices": [{"index": 1, "text": "", "finish_reason": finish}]})]
    out, _ = run([*chunks, *end, DONE], "completions")

    assert masked(text) == said(out, "completions").get((1, "text", 0), "")


def response_events(text, source):
    """The events of one message as the Responses API sends them."""
    part = {"type": "output_text", "text": text, "annotations": []}
    item = {"type": "message", "id": "i", "content": [part]}
    place = {"item_id": "i", "output_index": 0, "content_index": 0}
    events = [
        ("response.created", {"response": {"status": "in_progress", "output": []}}),
        ("response.output_item.added", {"output_index": 0, "item": {"type": "message", "content": []}}),
        ("response.content_part.added", {**place, "part": {"type": "output_text", "text": ""}}),
        *[("response.output_text.delta", {**place, "delta": piece, "logprobs": []}) for piece in pieces(text, source)],
        ("response.output_text.done", {**place, "text": text, "logprobs": []}),
        ("response.content_part.done", {**place, "part": part}),
        ("response.output_item.done", {"output_index": 0, "item": item}),
        ("response.completed", {"response": {"status": "completed", "output": [item]}}),
    ]
    return [
        sse({"type": name, "sequence_number": at, **data}, name, is_last=name == "response.completed")
        for at, (name, data) in enumerate(events)
    ]


@given(prose, st.randoms())
@settings(max_examples=100)
def test_a_response_is_masked_in_its_deltas_and_in_every_repetition(text, source):
    out, _ = run(response_events(text, source), "responses")
    deltas = "".join(chunk.data["delta"] for chunk in out if chunk.event == "response.output_text.delta")
    repetitions = [
        next(chunk.data["text"] for chunk in out if chunk.event == "response.output_text.done"),
        next(chunk.data["part"]["text"] for chunk in out if chunk.event == "response.content_part.done"),
        next(chunk.data["item"]["content"][0]["text"] for chunk in out if chunk.event == "response.output_item.done"),
        out[-1].data["response"]["output"][0]["content"][0]["text"],
    ]

    assert [masked(text)] * 5 == [deltas, *repetitions]
    assert list(range(len(out))) == [chunk.data["sequence_number"] for chunk in out]
    assert "response.completed" == out[-1].event


@given(prose, prose, st.randoms())
@settings(max_examples=100)
def test_messages_blocks_are_masked_before_they_stop(text, value, source):
    def event(kind, **data):
        return sse({"type": kind, **data}, kind, is_last=kind == "message_stop")

    chunks = [event("message_start", message={"content": [], "usage": {}})]
    chunks.append(event("content_block_start", index=0, content_block={"type": "text", "text": ""}))
    chunks += [
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
        for piece in pieces(text, source)
    ]
    chunks.append(event("content_block_stop", index=0))
    chunks.append(event("content_block_start", index=1, content_block={"type": "tool_use", "input": {}}))
    chunks += [
        event("content_block_delta", index=1, delta={"type": "input_json_delta", "partial_json": piece})
        for piece in pieces(json.dumps({"x": value}), source)
    ]
    chunks += [event("content_block_stop", index=1), event("message_delta", delta={"stop_reason": "end_turn"})]
    out, _ = run([*chunks, event("message_stop")], "messages")
    body = fold([chunk.data for chunk in out], "messages")
    kinds = [(chunk.data["type"], chunk.data.get("index")) for chunk in out]
    first_stop = kinds.index(("content_block_stop", 0))

    assert [masked(text), {"x": masked(value)}] == [body["content"][0]["text"], body["content"][1]["input"]]
    assert ("content_block_delta", 0) not in kinds[first_stop:]
    assert {chunk.data["type"] for chunk in out if chunk.event is None} == set()


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("chat", {"choices": [{"index": 0, "message": {"content": f"to {SECRET}"}, "finish_reason": "stop"}], "x": 1}),
        ("chat", {"choices": [{"index": 0, "message": {"content": f"to {SECRET}"}}], "x": 1}),
        ("completions", {"choices": [{"index": 0, "text": f"to {SECRET}", "finish_reason": "length"}]}),
        ("responses", {"output": [{"type": "message", "content": [{"type": "output_text", "text": SECRET}]}]}),
        ("responses", {"output": [{"type": "function_call", "arguments": json.dumps({"a": SECRET})}]}),
        ("messages", {"content": [{"type": "text", "text": SECRET}, {"type": "tool_use", "input": {"a": [SECRET]}}]}),
    ],
)
def test_a_whole_body_is_masked_and_nothing_else_changes(route, body):
    raw = json.dumps(body).encode()
    out, exchange = run([BodyChunk(raw)], route)

    assert json.loads(raw.replace(SECRET.encode(), b"[email]")) == json.loads(body_of(out, route))
    assert "masked answer" == exchange.decisions[0].what
    assert "email" in exchange.decisions[0].detail


def test_an_answer_without_secrets_leaves_byte_for_byte():
    whole = BodyChunk(b'{ "choices": [ {"index":0,"message":{"content":"hello there"},"finish_reason":"stop"} ] }')
    role = delta(role="assistant")
    usage = sse({"choices": [], "usage": {"prompt_tokens": 1}})
    comment = Chunk(b": keep-alive\n\n")

    for chunk in (whole, role, usage, comment, DONE):
        assert [chunk] == run([chunk])[0]
    assert [] == run([whole])[1].decisions


def test_held_text_leaves_before_the_finish():
    out, _ = run([delta(content="mail bob@exam"), delta(content="ple.com"), delta(0, "stop"), DONE])
    finish = next(at for at, chunk in enumerate(out) if chunk.data and chunk.data["choices"][0]["finish_reason"])

    assert "mail [email]" == said(out[:finish])[0, "content", 0]
    assert ["", ""] == [
        out[1].data["choices"][0]["delta"]["content"],
        out[finish].data["choices"][0]["delta"].get("content", ""),
    ]


def entry(token):
    return {
        "token": token,
        "logprob": -0.1,
        "bytes": list(token.encode()),
        "top_logprobs": [{"token": token, "logprob": -0.1}],
    }


def tokens_of(out):
    return [
        row["token"]
        for chunk in out
        if chunk.data
        for choice in chunk.data["choices"]
        for row in ((choice.get("logprobs") or {}).get("content") or [])
    ]


def test_logprobs_of_masked_tokens_never_leave():
    tokens = ["Mail", " b", "ob", "@", "example", ".com", " now", " please", "!"]
    chunks = [delta(content=token, logprobs={"content": [entry(token)]}) for token in tokens]
    out, _ = run([*chunks, delta(0, "stop"), DONE])

    assert "Mail [email] now please!" == said(out)[0, "content", 0]
    assert ["Mail", " now", " please", "!"] == tokens_of(out)


def test_a_token_of_which_one_character_is_masked_is_dropped_and_the_others_of_the_chunk_stay():
    tokens = ["a", " b", "ob@example.com", " c"]
    chunk = delta(content="".join(tokens), finish="stop", logprobs={"content": [entry(token) for token in tokens]})
    out, _ = run([chunk, DONE])

    assert ["a", " c"] == tokens_of(out)


def test_logprobs_that_do_not_spell_the_text_leave_only_if_nothing_was_masked():
    odd = [entry("\\xe2\\x82"), entry("\\xac")]
    clean, _ = run([delta(content="\u20ac 5", logprobs={"content": odd}), delta(0, "stop"), DONE])
    dirty, _ = run([delta(content=f"\u20ac {SECRET}", logprobs={"content": odd}), delta(0, "stop"), DONE])

    assert 2 == len(tokens_of(clean))
    assert [] == tokens_of(dirty)


def test_entries_without_text_and_token_ids_do_not_leave():
    chunk = sse({"choices": [{"index": 0, "delta": {}, "logprobs": {"content": [entry("x")]}, "token_ids": [1, 2]}]})
    out, _ = run([chunk, DONE])

    assert [] == tokens_of(out)
    assert out[0].data["choices"][0]["token_ids"] is None


def test_columns_of_a_completions_logprobs_lose_the_masked_rows():
    tokens = ["to ", SECRET, " ok"]
    columns = {"tokens": tokens, "token_logprobs": [-1, -2, -3], "top_logprobs": None, "text_offset": [0, 3, 18]}
    body = {"choices": [{"index": 0, "text": "".join(tokens), "logprobs": columns, "finish_reason": "stop"}]}
    out, _ = run([BodyChunk(json.dumps(body).encode())], "completions")
    left = json.loads(body_of(out, "completions"))["choices"][0]["logprobs"]

    assert {"tokens": ["to ", " ok"], "token_logprobs": [-1, -3], "top_logprobs": None, "text_offset": [0, 18]} == left


@given(prose, st.randoms())
@settings(max_examples=60)
def test_no_logprob_that_leaves_touches_a_secret(text, source):
    chunks = [delta(content=piece, logprobs={"content": [entry(piece)]}) for piece in pieces(text, source)]
    out, _ = run([*chunks, delta(0, "stop"), DONE])
    plain = "".join(tokens_of(out))

    for secret in (SECRET, "sk-abcdefghijklmnopqrstuv", "4111 1111 1111 1111"):
        assert secret not in plain or secret in masked(text)


def test_logprobs_of_a_response_are_masked_where_its_text_is():
    part = {"type": "output_text", "text": f"to {SECRET}!", "logprobs": [entry("to "), entry(SECRET), entry("!")]}
    body = {"output": [{"type": "message", "content": [part]}]}
    out, _ = run([BodyChunk(json.dumps(body).encode())], "responses")
    (left,) = json.loads(body_of(out, "responses"))["output"][0]["content"]

    assert ("to [email]!", ["to ", "!"]) == (left["text"], [row["token"] for row in left["logprobs"]])


@pytest.mark.parametrize("route", ["embeddings", "raw"])
def test_routes_without_text_keep_their_bytes(route):
    assert PLUGIN.chunk_filter(Exchange(b"{}", route=route)) is None


async def test_requests_are_masked_only_if_asked_to():
    body = {"model": "m", "messages": [{"role": "user", "content": f"I am {SECRET}"}], "input": {"a": 1}}
    for asked in (False, True):
        exchange = Exchange(json.dumps(body).encode())
        await RedactPlugin(RedactSettings(requests=asked)).on_request(exchange)

        assert asked == exchange.edited
        assert ("I am [email]" if asked else f"I am {SECRET}") == exchange.request["messages"][0]["content"]


async def test_a_request_without_secrets_is_not_edited():
    exchange = Exchange(b'{"messages":[{"role":"user","content":"hello"}]}')
    await RedactPlugin(RedactSettings(requests=True)).on_request(exchange)

    assert not exchange.edited


async def test_tool_calls_and_inputs_in_requests_are_masked_too():
    body = {
        "messages": [
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": json.dumps({"a": SECRET})}}]},
            {"role": "user", "content": [{"type": "tool_use", "input": {"a": SECRET}}]},
        ]
    }
    exchange = Exchange(json.dumps(body).encode())
    await RedactPlugin(RedactSettings(requests=True)).on_request(exchange)
    first, second = exchange.request["messages"]

    assert {"a": "[email]"} == json.loads(first["tool_calls"][0]["function"]["arguments"])
    assert {"a": "[email]"} == second["content"][0]["input"]


@pytest.mark.parametrize("depth", [700, 5000])
async def test_a_request_nested_too_deeply_is_refused(depth):
    body = b'{"messages":' + b'[{"content":' * depth + b'"x"' + b"}]" * depth + b"}"
    exchange = Exchange(body)
    with pytest.raises(RequestError) as refused:
        await RedactPlugin(RedactSettings(requests=True)).on_request(exchange)

    assert 400 == refused.value.status


def test_patterns_are_named_built_in_or_own():
    chosen = RedactSettings(
        patterns=["phone", {"name": "email", "replacement": "***"}, {"name": "ticket", "pattern": r"T-\d{4,8}"}]
    )
    out, _ = run([delta(content=f"{SECRET} +491701234567 T-12345", finish="stop")], plugin=RedactPlugin(chosen))

    assert "*** [phone] [ticket]" == said(out)[0, "content", 0]


@pytest.mark.parametrize(
    ("patterns", "told"),
    [
        ([{"name": "odd", "pattern": "(("}], "pattern 'odd' is not a regular expression"),
        (["e-mail"], "'e-mail' is not built in"),
        ([{"name": "none", "pattern": "x?"}], "matches the empty text"),
        ([], "at least 1"),
    ],
)
def test_bad_patterns_stop_the_start_and_are_named(patterns, told):
    with pytest.raises(ValidationError, match=told.replace("(", r"\(")):
        RedactSettings(patterns=patterns)


def test_a_pattern_that_runs_away_fails_the_answer_and_holds_nothing_up():
    plugin = RedactPlugin(
        RedactSettings(patterns=[{"name": "slow", "pattern": "(?:a|aa|aaa)+(?:b|c)!"}], match_timeout_s=0.01)
    )
    with pytest.raises(TimeoutError):
        run([delta(content="a" * 200 + "d", finish="stop")], plugin=plugin)


def test_random_bytes_from_an_upstream_raise_nothing():
    source = random.Random(5)
    for route in ("chat", "completions", "responses", "messages"):
        chunks = [Chunk(source.randbytes(30)) for _ in range(50)]

        assert chunks == run(chunks, route)[0]
