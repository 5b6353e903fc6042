"""Streams of blocks and items as providers really send them: split anywhere, interleaved, with parts nobody reads."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.plugins.verify.test_dialects import ROUTES, events_of, is_stopped, lying_response, run, texts, whole
from tests.plugins.verify.wary import Calls, Sums

from predawn.plugins.testing import Answer, Script, workbench
from predawn.plugins.verify import VerifyPlugin, VerifySettings
from predawn.plugins.verify.result import result_of

SSE = {"content-type": "text/event-stream"}
RIGHT, WRONG = '{"a": 1, "b": "x y"}', '{"path": "/etc/passwd"}'


def message(*blocks, stop="end_turn"):
    """A message whose blocks are (start, deltas)."""
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None}
    head |= {"stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 1}}
    told = [{"type": "message_start", "message": head}]
    for index, (start, deltas) in enumerate(blocks):
        told.append({"type": "content_block_start", "index": index, "content_block": start})
        told += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        told.append({"type": "content_block_stop", "index": index})
    delta = {"stop_reason": stop, "stop_sequence": None}
    told.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 9}})
    told.append({"type": "message_stop"})
    return events_of("messages", told)


def text(*said):
    return {"type": "text", "text": ""}, [{"type": "text_delta", "text": one} for one in said]


def thinking(*said):
    deltas = [{"type": "thinking_delta", "thinking": one} for one in said]
    return {"type": "thinking", "thinking": "", "signature": ""}, [
        *deltas,
        {"type": "signature_delta", "signature": "s"},
    ]


def tool(name, *pieces, ident="toolu_1"):
    start = {"type": "tool_use", "id": ident, "name": name, "input": {}}
    return start, [{"type": "input_json_delta", "partial_json": one} for one in pieces]


def response_call(name, pieces):
    item = {
        "id": "fc_1",
        "type": "function_call",
        "call_id": "call_1",
        "name": name,
        "arguments": "",
        "status": "in_progress",
    }
    base = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "parallel_tool_calls": True}
    base |= {"tool_choice": "auto", "tools": [], "status": "in_progress", "output": []}
    at = {"item_id": "fc_1", "output_index": 0}
    done = {**item, "arguments": "".join(pieces), "status": "completed"}
    told = [
        {"type": "response.created", "response": base},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        *({"type": "response.function_call_arguments.delta", **at, "delta": piece} for piece in pieces),
        {"type": "response.function_call_arguments.done", **at, "arguments": "".join(pieces), "name": name},
        {"type": "response.output_item.done", "output_index": 0, "item": done},
        {"type": "response.completed", "response": {**base, "status": "completed", "output": [done]}},
    ]
    return events_of("responses", [{**one, "sequence_number": number} for number, one in enumerate(told)])


def chat_call(name, pieces):
    first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": ""}}
    deltas = [{"role": "assistant", "tool_calls": [first]}]
    deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in pieces]
    told = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    told.append({"index": 0, "delta": {}, "finish_reason": "tool_calls"})
    lines = [json.dumps({"id": "c", "object": "chat.completion.chunk", "choices": [one]}) for one in told]
    return "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"])


def call_of(route, name, pieces):
    if route == "messages":
        return message(tool(name, *pieces), stop="tool_use")
    return response_call(name, pieces) if route == "responses" else chat_call(name, pieces)


@given(st.sampled_from(("chat", *ROUTES)), st.sampled_from(["gate", "intervene"]), st.booleans(), st.data())
@settings(max_examples=30)
async def test_a_call_split_anywhere_is_whole_or_not_there(route, mode, is_right, data):
    said = RIGHT if is_right else WRONG
    cuts = sorted(data.draw(st.lists(st.integers(0, len(said)), max_size=12)))
    pieces = [said[a:b] for a, b in zip([0, *cuts], [*cuts, len(said)], strict=True)]
    stream = data.draw(st.booleans())
    name = "add" if is_right else "remove"
    answer = Answer(body=call_of(route, name, pieces), headers=SSE)
    request = {"messages": [{"role": "user", "content": "hi"}]} if route == "chat" else None
    script = Script.of(answer, Answer(text="Well."))
    result = await run(route, script, Calls(), mode=mode, stream=stream, request=request)

    if not is_right:
        assert b"remove" not in result.raw
        assert b"passwd" not in result.raw
        return
    if route == "chat":
        ((name, given),) = [
            (call["function"]["name"], call["function"]["arguments"]) for call in result.message["tool_calls"]
        ]
    else:
        ((name, given),) = texts(whole(result))[2]
    assert (name, json.loads(given) if isinstance(given, str) else given) == ("add", json.loads(RIGHT))


async def test_what_stands_between_texts_keeps_its_place():
    search = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
    blocks = [
        thinking("Hm."),
        text("I look."),
        (search, [{"type": "input_json_delta", "partial_json": '{"query": "x"}'}]),
        (found, []),
        thinking("Ah."),
        text("It is 2", " there."),
        tool("add", RIGHT),
    ]
    result = await run("messages", Answer(body=message(*blocks), headers=SSE), Sums(), Calls(), mode="gate")
    body = whole(result)

    assert [block["type"] for block in body["content"]] == [start["type"] for start, _ in blocks]
    assert [block.get("signature") for block in body["content"] if block["type"] == "thinking"] == ["s", "s"]
    assert result_of(result.exchange).word == "pass"


async def test_texts_that_are_apart_are_not_read_as_one_number():
    blocks = [text("3 + 4 = 7"), tool("add", RIGHT), text("5 apples.")]
    result = await run("messages", Answer(body=message(*blocks), headers=SSE), Sums(), Calls(), mode="gate")

    assert result_of(result.exchange).violations == 0
    assert texts(whole(result))[1] == "3 + 4 = 75 apples."


async def test_a_sentence_that_citations_cut_into_blocks_is_read_whole():
    blocks = [text("3 + 4 "), text("= 8"), text(". Bye.")]
    result = await run("messages", Answer(body=message(*blocks), headers=SSE), Sums(), mode="gate")
    body = whole(result)

    assert is_stopped(body)
    assert texts(body)[1] == ""


async def test_a_cut_in_the_second_block_closes_it_and_no_other():
    blocks = [thinking("Hm."), text("Fine. "), text("So 3 + 4 = 8. Bye.")]
    script = Script.of(Answer(body=message(*blocks), headers=SSE), Answer(text=" The end."))
    body = whole(await run("messages", script, Sums(), mode="intervene"))

    assert texts(body)[:2] == ("Hm.", "Fine. So 3 + 4 = 7. The end.")
    assert body["content"][0]["signature"] == "s"


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("mode", ["gate", "optimistic", "intervene"])
async def test_a_stream_that_ends_without_its_end_is_cut_off(route, mode):
    said = lying_response("Fine. Well.", "Fine. Well.") if route == "responses" else message(text("Fine. Well."))
    short = said[: said.index("event: response.completed" if route == "responses" else "event: message_delta")]
    result = await run(route, Answer(body=short, headers=SSE), Sums(), mode=mode)

    assert result.outcome in ("truncated", "upstream_error")
    assert result.chunks[-1].event == "error"


async def test_a_response_that_failed_says_so_itself():
    said = lying_response("Fine.", "Fine.").replace("response.completed", "response.failed")
    result = await run("responses", Answer(body=said, headers=SSE), Sums(), mode="gate")

    assert result.chunks[-1].event == "response.failed"
    assert not is_stopped(result.chunks[-1].data["response"])


async def test_an_error_of_responses_is_no_end():
    broken = events_of(
        "responses", [{"type": "error", "code": "x", "message": "no", "param": None, "sequence_number": 1}]
    )
    said = lying_response("Fine.", "Fine.").partition("event: response.output_text.done")[0]
    for stream in (True, False):
        result = await run("responses", Answer(body=said + broken, headers=SSE), Sums(), mode="gate", stream=stream)

        assert b'"status":"completed"' not in result.raw
        assert stream or result.status >= 500


@pytest.mark.parametrize("mode", ["observe", "gate", "intervene"])
@pytest.mark.parametrize("route", ROUTES)
async def test_samples_of_every_wire_are_verified_each(route, mode):
    from tests.plugins.verify.test_dialects import request_of
    from tests.plugins.verify.test_verify_plugin import plugins

    from predawn.plugins.sampling import SamplingPlugin, SamplingSettings

    chosen = [SamplingPlugin(SamplingSettings()), *plugins(Sums(), mode=mode)]
    async with workbench(*chosen, upstream=Script(text="It is 7."), strict=False) as bench:
        wish = {"predawn": {"sampling": {"strategy": "vote", "samples": 2}}}
        result = await bench.run({**request_of(route), **wish}, route=route, stream=False)

    assert result.status in (200, 400)
    assert result.status == 400 or texts(whole(result))[1] == "It is 7."


@pytest.mark.parametrize("mode", ["gate", "intervene", "optimistic"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("route", ROUTES)
async def test_what_is_masked_and_what_is_put_right_are_one_answer(route, stream, mode):
    from tests.plugins.verify.test_dialects import request_of
    from tests.plugins.verify.test_verify_plugin import plugins

    from predawn.plugins.cache import CachePlugin, CacheSettings
    from predawn.plugins.redact import RedactPlugin, RedactSettings

    chosen = [CachePlugin(CacheSettings()), RedactPlugin(RedactSettings()), *plugins(Sums(), mode=mode)]
    script = Script.of(
        Answer(pieces=("Ask bob@exa", "mple.com. 3 + 4", " = 8. B", "ye.")), Answer(text=" Ask al@example.com.")
    )
    async with workbench(*chosen, upstream=script, strict=False) as bench:
        told = [await bench.run(request_of(route, temperature=0), route=route, stream=stream) for _ in range(2)]
    body = whole(told[0])

    assert b"@" not in told[0].raw
    assert texts(body)[1].startswith("Ask ")
    assert mode != "intervene" or "3 + 4 = 7. Ask" in texts(body)[1]
    assert texts(whole(told[1])) == texts(body) or told[1].headers.get("x-predawn-cache") == "miss"


@pytest.mark.parametrize("name", ["shell", "other"])
async def test_a_custom_call_is_held_and_named_like_any_other(name):
    item = {"id": "ctc_1", "type": "custom_tool_call", "call_id": "call_1", "name": name, "input": ""}
    base = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "parallel_tool_calls": True}
    base |= {"tool_choice": "auto", "tools": [], "status": "in_progress", "output": []}
    at = {"item_id": "ctc_1", "output_index": 0}
    told = [
        {"type": "response.created", "response": base},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.custom_tool_call_input.delta", **at, "delta": "ls -l"},
        {"type": "response.custom_tool_call_input.done", **at, "input": "ls -l"},
        {"type": "response.output_item.done", "output_index": 0, "item": {**item, "input": "ls -l"}},
        {
            "type": "response.completed",
            "response": {**base, "status": "completed", "output": [{**item, "input": "ls -l"}]},
        },
    ]
    body = events_of("responses", [{**one, "sequence_number": number} for number, one in enumerate(told)])
    request = {"input": "hi", "tools": [{"type": "custom", "name": "shell"}]}
    verify = VerifyPlugin(VerifySettings(verifiers=["tool_call"], mode="gate"))
    async with workbench(verify, upstream=Answer(body=body, headers=SSE)) as bench:
        result = await bench.run(request, route="responses", stream=True)

    assert (b"ls -l" in result.raw) is (name == "shell")
    assert is_stopped(result.chunks[-1].data["response"]) is (name == "other")


@pytest.mark.parametrize("content", ["a secret", [7], [{"type": "text", "text": "a secret", "citations": 7}]])
@pytest.mark.parametrize("mode", ["observe", "gate"])
async def test_a_message_that_begins_with_nonsense_is_not_read_and_not_passed_on(mode, content):
    begun = {
        "type": "message_start",
        "message": {"id": "m", "type": "message", "role": "assistant", "content": content},
    }
    events = [begun, {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, {"type": "message_stop"}]
    raw = tuple(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in events)
    result = await run("messages", Answer(raw=raw), Sums(), mode=mode)

    assert result.outcome == "ok"
    assert mode == "observe" or b"secret" not in result.raw
