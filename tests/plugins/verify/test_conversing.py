"""Requests that go on with an answer, in the words of each API."""

from dataclasses import replace

import pytest
from tests.plugins.verify.test_dialects import ROUTES, is_stopped, request_of, run, texts, whole
from tests.plugins.verify.test_verify_plugin import PREFILLS, REST, WRONG, plugins
from tests.plugins.verify.wary import PASS, Calls, Does, Sums

from predawn.plugins.testing import Answer, Script, ToolCall, workbench
from predawn.plugins.verify.conversing import Talk
from predawn.plugins.verify.mending import Mending
from predawn.plugins.verify.reading import Key
from predawn.plugins.verify.result import result_of

CALL = {"id": "call_1", "type": "function", "function": {"name": "rm", "arguments": '{"a": 1}'}}
BOTH = ("chat", "responses")
TOOL = {"tools": [{"name": "rm", "input_schema": {"type": "object"}}]}
REFUSED = Mending(Key("tool_call"), 0, note="No.", content="Hm.", call=CALL)


@pytest.mark.parametrize(
    ("route", "said", "noted"),
    [
        ("responses", "hi", "hi\n\nnote"),
        ("responses", [{"role": "user", "content": "hi"}], "hi\n\nnote"),
        (
            "responses",
            [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}],
            [{"type": "input_text", "text": "hi"}, {"type": "input_text", "text": "note"}],
        ),
        (
            "messages",
            [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]}],
            [{"type": "tool_result", "tool_use_id": "t"}, {"type": "text", "text": "note"}],
        ),
    ],
)
def test_a_note_stands_at_the_end_of_what_the_user_said(route, said, noted):
    talk = Talk.of({"input": said, "messages": said}, route)

    assert talk.noted("note").turns[-1] == {"role": "user", "content": noted}


@pytest.mark.parametrize(
    "last", [{"type": "function_call_output", "call_id": "c", "output": "x"}, {"role": "assistant"}]
)
def test_a_note_does_not_change_the_result_of_a_call(last):
    given = [{"role": "user", "content": "hi"}, last]
    talk = Talk.of({"input": given}, "responses").noted("note")

    assert talk.turns[:2] == given or last == {"role": "assistant"}
    assert "note" in str(talk.turns)


@pytest.mark.parametrize("said", [None, 7, [], {}])
@pytest.mark.parametrize("route", ["chat", *ROUTES])
def test_what_is_no_conversation_is_not_gone_on_with(route, said):
    assert Talk.of({"input": said, "messages": said}, route) is None


def test_a_conversation_that_the_provider_keeps_is_not_written_into():
    assert Talk.of({"input": "hi", "conversation": "conv_1"}, "responses") is None


def test_a_refused_call_is_answered_in_the_words_of_the_api():
    turns = {route: Talk(route, "x", []).refused(REFUSED)["x"] for route in ("chat", *ROUTES)}
    why = "Error: No. The call was not made."

    assert turns["chat"][1] == {"role": "tool", "tool_call_id": "call_1", "content": why}
    assert turns["messages"][0]["content"][1] == {"type": "tool_use", "id": "call_1", "name": "rm", "input": {"a": 1}}
    assert turns["messages"][1]["content"][0]["is_error"] is True
    assert turns["responses"][1:] == [
        {"type": "function_call", "call_id": "call_1", "name": "rm", "arguments": '{"a": 1}'},
        {"type": "function_call_output", "call_id": "call_1", "output": why},
    ]


def test_a_refused_custom_call_keeps_its_text():
    call = {"id": "c", "type": "custom", "function": {"name": "run", "arguments": "rm -r"}}
    turns = {route: Talk(route, "x", []).refused(replace(REFUSED, content="", call=call))["x"] for route in BOTH}

    assert turns["chat"][0]["tool_calls"] == [
        {"id": "c", "type": "custom", "custom": {"name": "run", "input": "rm -r"}}
    ]
    assert turns["responses"] == [
        {"type": "custom_tool_call", "call_id": "c", "name": "run", "input": "rm -r"},
        {"type": "custom_tool_call_output", "call_id": "c", "output": "Error: No. The call was not made."},
    ]


async def test_who_thinks_is_told_of_a_refused_call_in_the_conversation():
    request = request_of("messages", thinking={"type": "enabled", "budget_tokens": 1024}, **TOOL)
    script = Script.of(Answer(text="Hm.", tool_calls=(ToolCall(name="rm", arguments={}),)), Answer(text="Well."))
    result = await run("messages", script, Calls(), mode="intervene", request=request)
    turns = result.sent.json["messages"]

    assert "tool_use" not in str(turns)
    assert "There is no tool rm." in str(turns[-1])
    assert result_of(result.exchange).ways == ["feedback"]


@pytest.mark.parametrize("arguments", ["{", "7", None, "[" * 5000])
def test_arguments_that_are_no_object_are_not_sent_back(arguments):
    call = {"function": {"name": "rm", "arguments": arguments}}
    (said, _) = Talk("messages", "x", []).refused(Mending(Key("tool_call"), 0, note="No.", call=call))["x"]

    assert said["content"][0]["input"] == {}


async def test_a_message_that_was_refused_as_begun_is_asked_in_the_conversation():
    script = Script.of(Answer(text=WRONG), Answer(status=400), Answer(text=REST))
    result = await run("messages", script, Sums(), mode="intervene", config=PREFILLS)

    assert texts(whole(result))[1] == "Bob is small. 3 + 4 = 7. Bob = 7. So 7."
    assert result_of(result.exchange).ways == ["prefill", "feedback"]


async def test_who_thinks_is_not_asked_to_go_on_with_a_begun_message():
    request = request_of("messages", thinking={"type": "enabled", "budget_tokens": 1024})
    script = Script.of(Answer(text=WRONG), Answer(text=REST))
    result = await run("messages", script, Sums(), mode="intervene", config=PREFILLS, request=request)

    assert result_of(result.exchange).ways == ["feedback"]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("route", ROUTES)
async def test_a_call_that_goes_on_and_is_lost_ends_the_answer_with_an_error(route, stream):
    script = Script.of(Answer(text=WRONG), Answer(text=REST, fault="die_mid_event"))
    result = await run(route, script, Sums(), mode="intervene", stream=stream)

    assert result.outcome in ("truncated", "upstream_error")
    assert not any(chunk.event in ("message_stop", "response.completed") for chunk in result.chunks)
    assert stream or result.status >= 500


@pytest.mark.parametrize("route", ROUTES)
async def test_tokens_run_out_where_the_client_said(route):
    limit = {"max_tokens": 3} if route == "messages" else {"max_output_tokens": 3}
    answer = Answer(pieces=("One.", " 1 + 1 = 3.", " Two."), finish_reason="stop")
    result = await run(route, answer, Sums(), mode="intervene", correction="remark", request=request_of(route, **limit))

    assert sum("max_" in name for name in result.sent.json) == 1
    assert next(value for name, value in result.sent.json.items() if name.startswith("max_")) <= 3


@pytest.mark.parametrize(("limit", "calls"), [(17, 1), (18, 2)])
async def test_no_api_is_asked_for_fewer_tokens_than_it_takes(limit, calls):
    answer = Answer(pieces=("One.", " Two.", " 1 + 1 = 3.", " Three."))
    request = request_of("responses", max_output_tokens=limit)
    result = await run("responses", Script.of(answer, "Bye."), Sums(), mode="intervene", request=request)

    assert [asked.json["max_output_tokens"] for asked in result.requests] == [limit, 16][:calls]
    assert whole(result)["status"] == ("incomplete" if calls == 1 else "completed")


@pytest.mark.parametrize("route", ROUTES)
async def test_a_fork_asks_what_the_model_thinks_so_far(route):
    class Forks(Does):
        def fork(self, prefix):
            return " So far:", 5

    seen = []
    verifier = Forks("forks", lambda step, _: seen.append(step.forked) or PASS, reads=("content",))
    script = Script.of("The sum. ", "It is 7.")
    request = request_of(route, tools=[], thinking={"type": "disabled"})
    result = await run(route, script, verifier, mode="gate", request=request)
    asked = result.requests[1].json

    assert seen[0] == "It is 7."
    assert (asked.get("max_tokens"), asked.get("max_output_tokens")) == (
        (5, None) if route == "messages" else (None, 16)
    )
    assert not {"tools", "thinking", "continue_final_message"} & asked.keys()
    assert result.ledger.verify > 0


@pytest.mark.parametrize("route", ROUTES)
async def test_a_request_without_a_conversation_is_stopped_where_it_went_wrong(route):
    request = request_of(route) | {"input": [], "messages": []}
    async with workbench(*plugins(Sums(), mode="intervene"), upstream=WRONG, strict=False) as bench:
        result = await bench.run(request, route=route, stream=True)

    assert is_stopped(whole(result))
