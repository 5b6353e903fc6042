"""Whole messages and responses as events: put together again they are what they were."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.plugins.testing import Answer, ToolCall, workbench
from predawn.proxy.wire.events import message_events, response_events
from predawn.proxy.wire.fold import BodyChunk, events_of, fold
from predawn.proxy.wire.sse import event_chunk

SAYS = Answer(reasoning="Hm.", text="It is 2.", tool_calls=(ToolCall(name="add", arguments={"a": [1]}),))
REQUESTS = {
    "messages": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 99},
    "responses": {"input": "hi"},
}
words = st.text(alphabet="ab ☀\n", max_size=5)
blocks = st.lists(
    st.builds(lambda text: {"type": "text", "text": text}, words)
    | st.builds(lambda text: {"type": "thinking", "thinking": text, "signature": "s"}, words)
    | st.builds(lambda name: {"type": "tool_use", "id": "t", "name": name, "input": {"a": name}}, words)
    | st.just({"type": "redacted_thinking", "data": "x"}),
    max_size=4,
)
items = st.lists(
    st.builds(lambda text: {"id": "m", "type": "message", "content": [{"type": "output_text", "text": text}]}, words)
    | st.builds(
        lambda text: {"id": "r", "type": "reasoning", "summary": [{"type": "summary_text", "text": text}]}, words
    )
    | st.builds(lambda said: {"id": "f", "type": "function_call", "name": "x", "arguments": said}, words)
    | st.builds(lambda said: {"id": "c", "type": "custom_tool_call", "name": "x", "input": said}, words)
    | st.just({"id": "f", "type": "function_call", "name": "x"})
    | st.just({"id": "w", "type": "web_search_call", "status": "completed"}),
    max_size=4,
)


@given(blocks)
def test_a_message_survives_its_events(content):
    body = {"id": "x", "type": "message", "role": "assistant", "content": content, "stop_reason": "end_turn"}
    body |= {"stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 2}}
    events = message_events(body)

    assert fold([event.data for event in events], "messages") == body
    assert [event.is_last for event in events] == [False] * (len(events) - 1) + [True]


@given(items, st.sampled_from(["completed", "failed", "incomplete", "cancelled", None]))
def test_a_response_survives_its_events(output, status):
    body = {"id": "x", "object": "response", "status": status, "output": output, "usage": None}
    events = response_events(body)

    assert fold([event.data for event in events], "responses") == body
    assert [event.data["sequence_number"] for event in events] == list(range(len(events)))


@pytest.mark.parametrize("route", ["messages", "responses"])
async def test_the_events_are_those_of_a_provider(route):
    async with workbench(upstream=SAYS) as bench:
        whole = await bench.run(REQUESTS[route], route=route)
        stream = await bench.run(REQUESTS[route], route=route, stream=True)
    made = [event_chunk(raw) for raw in events_of(BodyChunk(whole.raw), route, include_usage=True)]
    kinds = [chunk.event for chunk in stream.chunks if chunk.event and chunk.event != "ping"]

    assert list(dict.fromkeys(chunk.event for chunk in made)) == list(dict.fromkeys(kinds))
    assert made[-1].is_last


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"content": 1, "output": 1},
        {"content": ["x"]},
        {"output": {}},
        {"output": [1]},
        {"error": {}},
        {"content": [{"type": "text", "text": "", "citations": 7}]},
    ],
)
def test_a_body_that_is_no_answer_is_refused(body):
    for made in (message_events, response_events):
        with pytest.raises(ValueError, match="the body is no"):
            made(body)


@pytest.mark.parametrize(
    ("item", "name"),
    [
        ({"type": "function_call", "arguments": "{}"}, "function_call_arguments"),
        ({"type": "custom_tool_call", "input": "ls"}, "custom_tool_call_input"),
    ],
)
def test_a_call_is_told_in_pieces(item, name):
    body = {"id": "x", "status": "completed", "output": [{"id": "c", "name": "run", **item}]}
    kinds = [event.event for event in response_events(body)]
    added = next(event.data["item"] for event in response_events(body) if event.event == "response.output_item.added")

    assert kinds[3:5] == [f"response.{name}.delta", f"response.{name}.done"]
    assert [added[member] for member in item if member != "type"] == [""]
