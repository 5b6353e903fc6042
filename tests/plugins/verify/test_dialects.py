"""Answers of `/v1/messages` and `/v1/responses`, verified: what clients get is whole in the words of their API."""

import json

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from tests.plugins.verify.test_verify_plugin import PREFILLS, REST, WRONG, plugins
from tests.plugins.verify.wary import PASS, Calls, Does, Sums

from predawn.plugins.testing import Answer, Script, ToolCall, workbench
from predawn.plugins.verify.result import result_of
from predawn.proxy.wire.fold import fold

ROUTES = ("messages", "responses")
MODES = ("observe", "optimistic", "gate", "intervene")
EVENTS = {"messages": TypeAdapter(RawMessageStreamEvent), "responses": TypeAdapter(ResponseStreamEvent)}
WHOLE = {"messages": TypeAdapter(Message), "responses": TypeAdapter(Response)}
ENDS = {"messages": "message_stop", "responses": "response."}
THINKS = Answer(reasoning="Hm. 1 + 1 = 2.", text=WRONG)


def request_of(route, **more):
    if route == "messages":
        return {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 500, **more}
    return {"input": "hi", **more}


def tools_of(route):
    schema = {"type": "object", "properties": {}}
    if route == "messages":
        return {"tools": [{"name": "add", "input_schema": schema}]}
    return {"tools": [{"type": "function", "name": "add", "parameters": schema}]}


async def run(route, script, *verifiers, stream=True, request=None, config=None, headers=None, after=None, **given):
    async with workbench(*plugins(*verifiers, **given), upstream=script, config=config, strict=False) as bench:
        return await bench.run(
            request or request_of(route), route=route, stream=stream, headers=headers, disconnect_after=after
        )


def whole(result):
    """The answer as the official client's types see it, from events or from a body."""
    if not result.streamed:
        body = json.loads(result.raw)
        WHOLE[result.route].validate_python(typed({"response": body})["response"])
        return body
    events = [chunk.data for chunk in result.chunks if chunk.data and chunk.data.get("type") != "ping"]
    for event in events:
        EVENTS[result.route].validate_python(typed(event))
    check_order(result.route, events)
    return fold(events, result.route)


def typed(event):
    """The event with a count that the newest types of the client want and the scripted upstream does not tell."""
    response = event.get("response")
    usage = response.get("usage") if response else None
    if not usage or "total_tokens" not in usage:
        return event
    details = {"cache_write_tokens": 0, **usage.get("input_tokens_details", {"cached_tokens": 0})}
    return {**event, "response": {**response, "usage": {**usage, "input_tokens_details": details}}}


def check_order(route, events):
    """Blocks, items and parts begin once and end once, in order, and what is repeated is what was said."""
    assert events[-1]["type"].startswith(ENDS[route])
    if route == "responses":
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        check_items(events)
        return
    opened = None
    for event in events:
        kind = event["type"].removeprefix("content_block_")
        if kind == "start":
            assert opened is None
            opened = event["index"]
        elif kind in ("delta", "stop"):
            assert event["index"] == opened
            opened = None if kind == "stop" else opened
    assert opened is None


def check_items(events):
    said, items = {}, {}
    for event in events:
        kind, where = event["type"].removeprefix("response."), event.get("output_index")
        if kind == "output_item.added":
            assert where == len(items)
            items[where], said[where] = None, ""
        elif kind.endswith(".delta"):
            said[where] += event["delta"]
        elif kind.endswith(".done") and "part" not in kind and "item" not in kind:
            assert said[where].endswith(event.get("text", event.get("arguments")))
        elif kind == "output_item.done":
            items[where] = event["item"]
    assert events[-1]["response"]["output"] == [items[index] for index in sorted(items)]


def texts(body):
    """Thoughts, text, calls and why it ended."""
    thoughts, text, calls = "", "", []
    for block in body["content" if "content" in body else "output"]:
        kind = block["type"]
        if kind == "thinking":
            thoughts += block["thinking"]
        elif kind == "text":
            text += block["text"]
        elif kind == "reasoning":
            thoughts += "".join(part["text"] for part in [*block["summary"], *(block.get("content") or ())])
        elif kind == "message":
            text += "".join(part["text"] for part in block["content"])
        else:
            calls.append((block["name"], block.get("input", block.get("arguments"))))
    return thoughts, text, calls


def is_stopped(body):
    return body.get("stop_reason") == "refusal" or body.get("incomplete_details") == {"reason": "content_filter"}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("route", ROUTES)
async def test_a_right_answer_passes_with_all_it_says(route, mode, stream):
    answer = Answer(reasoning="Hm. 1 + 1 = 2.", text="It is 2.", tool_calls=(ToolCall(name="add", arguments={"a": 1}),))
    result = await run(route, answer, Sums(), Calls(), mode=mode, stream=stream)
    thoughts, text, calls = texts(whole(result))

    assert (thoughts, text) == ("Hm. 1 + 1 = 2.", "It is 2.")
    assert [name for name, _ in calls] == ["add"]
    assert result_of(result.exchange).word == "pass"
    assert {verdict.verifier for verdict in result.exchange.verdicts} == {"sums", "calls"}


@pytest.mark.parametrize("route", ROUTES)
async def test_observing_leaves_every_byte_as_it_was(route):
    async with workbench(upstream=THINKS) as bench:
        plain = await bench.run(request_of(route), route=route, stream=True)
    seen = await run(route, THINKS, Sums(), mode="observe")

    assert seen.raw == plain.raw
    assert seen.sent.body == plain.sent.body
    assert result_of(seen.exchange).word == "violation"


@pytest.mark.parametrize("route", ROUTES)
async def test_a_right_stream_leaves_a_gate_event_by_event_as_it_came(route):
    answer = Answer(reasoning="Hm.", text="It is 2.")
    async with workbench(upstream=answer) as bench:
        plain = await bench.run(request_of(route), route=route, stream=True)
    seen = await run(route, answer, Sums(), mode="gate")
    usual = [chunk.raw for chunk in plain.chunks if b"usage" not in chunk.raw and chunk.event != "ping"]

    assert [chunk.raw for chunk in seen.chunks if b"usage" not in chunk.raw and chunk.event != "ping"] == usual


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("route", ROUTES)
async def test_a_gate_ends_before_the_violation_and_says_so(route, stream):
    result = await run(route, THINKS, Sums(), stream=stream)
    body = whole(result)

    assert texts(body)[:2] == ("Hm. 1 + 1 = 2.", "Bob is small.")
    assert is_stopped(body)
    assert body["predawn"] == {"stopped_by": "sums", "where": "content", "step": 1}
    assert b"= 8" not in result.raw
    assert body["usage"]["output_tokens"] == result.ledger.output


@pytest.mark.parametrize("route", ROUTES)
async def test_an_optimistic_stream_is_stopped_where_it_is(route):
    answer = Answer(text=WRONG * 20, interval_ms=1)
    body = whole(await run(route, answer, Sums(), mode="optimistic"))

    assert is_stopped(body)
    assert (WRONG * 20).startswith(texts(body)[1])
    assert len(texts(body)[1]) < len(WRONG * 20)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("config", [None, PREFILLS])
@pytest.mark.parametrize("route", ROUTES)
async def test_a_wrong_step_is_put_right_and_gone_on_from(route, config, stream):
    script = Script.of(Answer(text=WRONG), Answer(text=REST))
    result = await run(route, script, Sums(), mode="intervene", stream=stream, config=config)
    body, sent = whole(result), result.sent.json
    said = sent.get("messages") or sent["input"]
    is_prefilled = route == "messages" and config is not None

    assert texts(body)[1] == "Bob is small. 3 + 4 = 7. Bob = 7. So 7."
    assert result_of(result.exchange).ways == ["prefill" if is_prefilled else "feedback"]
    assert said[-1 if is_prefilled else -2] == {"role": "assistant", "content": "Bob is small. 3 + 4 = 7."}
    assert "continue_final_message" not in sent
    assert result.ledger.all_output == result.upstream.counts.output_tokens
    assert body["usage"]["output_tokens"] == result.ledger.output
    assert body["usage"]["predawn"]["discarded_tokens"] == result.ledger.discarded


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("mode", ["gate", "intervene"])
@pytest.mark.parametrize("route", ROUTES)
async def test_a_wrong_tool_call_never_reaches_the_client(route, mode, stream):
    wrong = Answer(text="Hm.", tool_calls=(ToolCall(name="rm", arguments={"path": "/"}),))
    right = Answer(tool_calls=(ToolCall(name="add", arguments={"a": 1}),))
    request = request_of(route, **tools_of(route))
    result = await run(route, Script.of(wrong, right), Calls(), mode=mode, stream=stream, request=request)
    body = whole(result)

    assert b'"rm"' not in result.raw
    assert b"path" not in result.raw
    if mode == "gate":
        assert is_stopped(body)
        return
    ((name, given),) = texts(body)[2]
    assert (name, json.loads(given) if isinstance(given, str) else given) == ("add", {"a": 1})
    asked = json.dumps(result.sent.json)
    assert "There is no tool rm." in asked
    assert {"messages": '"tool_result"', "responses": '"function_call_output"'}[route] in asked


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("route", ROUTES)
async def test_thoughts_are_put_right_before_the_answer_is_given(route, stream):
    script = Script.of(Answer(reasoning=WRONG, text="8"), Answer(reasoning=" Bob = 7.", text="7"))
    body = whole(await run(route, script, Sums(), mode="intervene", stream=stream))

    assert texts(body)[:2] == ("Bob is small. 3 + 4 = 7. Bob = 7.", "7")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("route", ROUTES)
async def test_an_answer_is_begun_again(route, stream):
    script = Script.of(Answer(text="3 + 4 = 8."), Answer(reasoning="Hm.", text="All is well."))
    result = await run(route, script, Sums(), mode="gate", then="retry", stream=stream)

    assert texts(whole(result))[:2] == ("Hm.", "All is well.")
    assert "3 + 4 is 7." in json.dumps(result.sent.json)


@pytest.mark.parametrize("route", ROUTES)
async def test_no_endpoint_leads_around_a_guard(route):
    wish = {"predawn": {"verify": False}}
    result = await run(route, WRONG, Sums(), requests_may_relax=False, request=request_of(route, **wish))

    assert is_stopped(whole(result))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", ["die_mid_event", "error_event"])
@pytest.mark.parametrize("route", ROUTES)
async def test_an_answer_that_is_cut_off_says_so_once(route, fault, mode):
    result = await run(route, Answer(text="One. Two. Three.", fault=fault), Sums(), mode=mode)

    assert not any(chunk.event in ("message_stop", "response.completed") for chunk in result.chunks)
    assert sum(chunk.event == "error" for chunk in result.chunks) == 1
    assert result.upstream.counts.in_flight == 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("route", ROUTES)
async def test_a_client_may_leave_at_any_event(route, mode):
    script = Script.of(Answer(reasoning="Hm.", text=WRONG), Answer(text=REST))
    for events in range(0, 24, 3):
        result = await run(route, script, Sums(), mode=mode, after=events)

        assert result.upstream.counts.in_flight == 0
        assert result.outcome in ("client_closed", "ok")


def events_of(route, body):
    """A stream as an upstream sends it that tells everything but text as `body` says, and text as `said`."""
    return "".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in body)


def lying_response(text, repeated):
    part = {"type": "output_text", "text": repeated, "annotations": []}
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    base = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "parallel_tool_calls": True}
    base |= {"tool_choice": "auto", "tools": [], "status": "in_progress", "output": []}
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    told = [
        {"type": "response.created", "response": base},
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}},
        {"type": "response.content_part.added", **at, "part": {**part, "text": ""}},
        *([{"type": "response.output_text.delta", **at, "delta": text, "logprobs": []}] if text else []),
        {"type": "response.output_text.done", **at, "text": repeated, "logprobs": []},
        {"type": "response.content_part.done", **at, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {**base, "status": "completed", "output": [item]}},
    ]
    return events_of("responses", [{**one, "sequence_number": number} for number, one in enumerate(told)])


@pytest.mark.parametrize(
    ("text", "repeated", "got"),
    [
        ("Fine.", "Fine. 3 + 4 = 8.", "Fine."),
        ("", "3 + 4 = 8.", ""),
        ("Fine.", "3 + 4 = 8.", "Fine."),
        ("Fine.", "Fine.", "Fine."),
    ],
)
@pytest.mark.parametrize("mode", ["gate", "optimistic"])
async def test_what_is_repeated_cannot_smuggle_what_was_not_verified(text, repeated, got, mode):
    answer = Answer(body=lying_response(text, repeated), headers={"content-type": "text/event-stream"})
    result = await run("responses", answer, Sums(), mode=mode)
    body = result.chunks[-1].data["response"]
    said = "".join(part["text"] for item in body["output"] for part in item["content"])

    assert said == got or (mode == "optimistic" and repeated.startswith(said))
    assert mode == "optimistic" or b"= 8" not in result.raw


@pytest.mark.parametrize("mode", ["observe", "gate"])
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("body", ["[]", '{"type": "message"}', '{"output": 7}', '{"content": [7]}', '{"error": {}}'])
async def test_a_body_that_is_no_answer_breaks_nothing(route, body, mode):
    for stream in (True, False):
        result = await run(route, Answer(body=body), Sums(), mode=mode, stream=stream)

        assert result.outcome in ("ok", "upstream_error", "truncated")


@pytest.mark.parametrize("mode", ["observe", "optimistic", "gate"])
@pytest.mark.parametrize("route", ROUTES)
async def test_an_upstream_that_does_not_stream_is_read_all_the_same(route, mode):
    async with workbench(upstream=THINKS) as bench:
        plain = await bench.run(request_of(route), route=route)
    for stream in (True, False):
        result = await run(route, Answer(body=plain.raw.decode()), Sums(), mode=mode, stream=stream)

        assert result_of(result.exchange).violations == 1
        assert is_stopped(whole(result)) is (mode != "observe")


noise = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from(["text", "text_delta", "tool_use", "3 + 4 = 8.", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=12,
) if (NAMES := ["type", "delta", "index", "item", "part", "text", "content_block", "output_index", "message", "response",
                "content", "input", "name", "id", "usage", "error", "output", "summary", "sequence_number"]) else None  # fmt: skip
KINDS = {
    "messages": ["message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta"],
    "responses": [
        f"response.{name}"
        for name in (
            "created", "output_item.added", "output_item.done", "output_text.delta", "output_text.done", "completed",
            "content_part.added", "content_part.done", "function_call_arguments.delta", "incomplete",
        )
    ],
}  # fmt: skip


@given(st.sampled_from(ROUTES), st.sampled_from(MODES), st.data())
@settings(max_examples=50)
async def test_nonsense_in_events_fails_nobody_else(route, mode, data):
    count = data.draw(st.integers(1, 6))
    drawn = [
        {**(data.draw(st.dictionaries(st.sampled_from(NAMES), noise, max_size=5))), "type": data.draw(st.sampled_from(KINDS[route]))}
        for _ in range(count)
    ]  # fmt: skip
    end = [{"type": "message_stop"}] if route == "messages" else []
    answer = Answer(body=events_of(route, [*drawn, *end]), headers={"content-type": "text/event-stream"})
    result = await run(route, answer, Sums(), Calls(), mode=mode)

    assert result.outcome in ("ok", "upstream_error", "truncated")


@given(st.lists(st.sampled_from(["A", " 1 + 1 = 3", ".", " Yes.", "\n", " 2 + 2 = 4."]), max_size=8), st.data())
@settings(max_examples=25)
async def test_verdicts_are_the_same_on_every_wire(words, data):
    text = "".join(words)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    pieces = tuple(text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True) if text[a:b]) or ("",)
    told = []
    for route in ("chat", *ROUTES):
        request = request_of(route) if route != "chat" else {"messages": [{"role": "user", "content": "hi"}]}
        result = await run(route, Answer(pieces=pieces), Sums(), mode="gate", request=request)
        said = texts(whole(result))[1] if route != "chat" else result.text
        told.append((said, [(one.outcome, one.where) for one in result.exchange.verdicts]))

    assert told[0] == told[1] == told[2]


async def test_hostile_events_do_not_hold_up_the_loop():
    bait = "[" * 200_000 + "\n" * 200_000
    for route in ROUTES:
        async with workbench(
            *plugins(Does("reads", lambda *_: PASS), mode="gate"), upstream=Answer(pieces=(bait,)), blocking_s=0.2
        ) as bench:
            result = await bench.run(request_of(route), route=route, stream=True)

        assert texts(whole(result))[1] == bait
