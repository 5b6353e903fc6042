"""Answers that wait for the client's tools, in each API's words and in no other's."""

import pytest

from predawn.plugins import Chunk
from predawn.plugins.sleep.toolgaps import waits_for_tools


def item(kind):
    return {"type": kind, "id": "i"}


WAITING = [
    ("chat", None, {"choices": [{"finish_reason": None}, {"finish_reason": "tool_calls"}]}),
    ("chat", None, {"choices": [{"finish_reason": "function_call"}]}),
    ("messages", "message_delta", {"type": "message_delta", "delta": {"stop_reason": "tool_use"}}),
    ("messages", None, {"type": "message", "stop_reason": "tool_use", "content": []}),
    ("responses", None, {"output": [item("message"), item("function_call")]}),
    ("responses", "response.completed", {"response": {"output": [item("custom_tool_call")]}}),
    ("responses", "response.output_item.done", {"item": item("computer_call")}),
]
DONE = [
    ("chat", None, {"choices": [{"finish_reason": "stop"}, {}, 7]}),
    ("chat", None, {"choices": [{"finish_reason": {}}]}),
    ("messages", "message_delta", {"delta": {"stop_reason": "end_turn"}}),
    ("messages", "content_block_delta", {"delta": {"stop_reason": "tool_use"}}),
    ("messages", None, {"delta": 3, "stop_reason": []}),
    ("responses", None, {"output": [item("web_search_call"), item("message"), "x"]}),
    ("responses", "response.output_item.added", {"item": item("function_call")}),
    ("responses", "response.completed", {"response": None, "output": 3}),
    ("completions", None, {"choices": [{"finish_reason": "tool_calls"}]}),
]


@pytest.mark.parametrize(("route", "event", "data"), WAITING)
def test_an_answer_that_ends_in_calls_waits_for_them(route, event, data):
    assert waits_for_tools(route, Chunk.of(data, event=event))


@pytest.mark.parametrize(("route", "event", "data"), DONE)
def test_any_other_does_not(route, event, data):
    assert not waits_for_tools(route, Chunk.of(data, event=event))


def test_what_is_no_object_does_not():
    for route in ("chat", "messages", "responses"):
        assert not waits_for_tools(route, Chunk(b"data: [DONE]\n\n"))
