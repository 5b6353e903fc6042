"""Where text lives in each dialect, and how to put other text there."""

import msgspec
import pytest

from predawn.proxy.wire.text import Lane, continuation, ended, get, put, request_texts, texts


def found(data, route):
    return [(tuple(span.lane), span.text, span.form, span.whole) for span in texts(data, route)]


def test_a_chat_chunk_has_a_lane_per_choice_kind_and_tool():
    data = {
        "choices": [
            {"index": 1, "delta": {"content": "a", "refusal": "b", "reasoning_content": "c", "reasoning": "d"}},
            {
                "index": 0,
                "delta": {
                    "tool_calls": [
                        {"index": 2, "function": {"name": "f", "arguments": '{"x'}},
                        {"index": 3, "custom": {"input": "free"}},
                    ]
                },
            },
        ]
    }

    assert [
        ((1, "content", 0), "a", "text", False),
        ((1, "refusal", 0), "b", "text", False),
        ((1, "reasoning_content", 0), "c", "text", False),
        ((1, "reasoning", 0), "d", "text", False),
        ((0, "arguments", 2), '{"x', "json", False),
        ((0, "input", 3), "free", "text", False),
    ] == found(data, "chat")


def test_chat_content_may_be_a_list_of_parts():
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "hi"}]
    data = {"choices": [{"index": 0, "delta": {"content": parts}}]}

    assert [((0, "thinking", 0), "hm", "text", False), ((0, "content", 1), "hi", "text", False)] == found(data, "chat")


def test_a_completion_chunk_has_a_lane_per_choice():
    data = {"choices": [{"index": 0, "text": "a"}, {"index": 1, "text": ""}, {"index": 2, "text": "c"}]}

    assert [((0, "text", 0), "a", "text", False), ((2, "text", 0), "c", "text", False)] == found(data, "completions")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            {"type": "response.output_text.delta", "output_index": 1, "content_index": 2, "delta": "a"},
            ((1, "output_text", 2), "a", "text", False),
        ),
        (
            {"type": "response.output_text.done", "output_index": 1, "content_index": 2, "text": "ab"},
            ((1, "output_text", 2), "ab", "text", True),
        ),
        (
            {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": "{"},
            ((1, "function_call_arguments", 0), "{", "json", False),
        ),
        (
            {"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 3, "delta": "a"},
            ((0, "reasoning_summary_text", 3), "a", "text", False),
        ),
        (
            {
                "type": "response.content_part.done",
                "output_index": 1,
                "content_index": 2,
                "part": {"type": "output_text", "text": "ab"},
            },
            ((1, "output_text", 2), "ab", "text", True),
        ),
        (
            {
                "type": "response.output_item.done",
                "output_index": 4,
                "item": {"type": "function_call", "arguments": "{}"},
            },
            ((4, "function_call_arguments", 0), "{}", "json", True),
        ),
        (
            {
                "type": "response.completed",
                "response": {"output": [{"type": "message", "content": [{"type": "output_text", "text": "ab"}]}]},
            },
            ((0, "output_text", 0), "ab", "text", True),
        ),
        (
            {
                "object": "response",
                "output": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "s"}]}],
            },
            ((0, "reasoning_summary_text", 0), "s", "text", True),
        ),
    ],
)
def test_a_responses_event_names_item_kind_and_part(data, expected):
    assert [expected] == found(data, "responses")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "a"}},
            ((1, "text", 0), "a", "text", False),
        ),
        (
            {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"'}},
            ((1, "input", 0), '{"', "json", False),
        ),
        (
            {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": "a"}},
            ((1, "text", 0), "a", "text", False),
        ),
        (
            {"type": "message", "content": [{"type": "tool_use", "input": {"x": 1}}]},
            ((0, "input", 0), '{"x":1}', "object", True),
        ),
    ],
)
def test_a_messages_event_names_the_block(data, expected):
    assert [expected] == found(data, "messages")


def test_each_dialect_says_what_a_chunk_ends():
    assert [(1,)] == ended({"choices": [{"index": 0}, {"index": 1, "finish_reason": "stop"}]}, "chat")
    assert [(2,)] == ended({"type": "content_block_stop", "index": 2}, "messages")
    assert [()] == ended({"type": "message_stop"}, "messages")
    done = {"type": "response.output_text.done", "output_index": 1, "content_index": 2}

    assert [(1, "output_text", 2)] == ended(done, "responses")
    assert [(1,)] == ended({"type": "response.output_item.done", "output_index": 1, "item": {}}, "responses")
    assert [()] == ended({"type": "response.failed", "response": {}}, "responses")
    assert [] == ended({"type": "response.created", "response": {}}, "responses")


def test_put_leaves_the_original_alone_and_shares_the_rest():
    data = {"a": [{"b": 1}, {"c": 2}], "d": {"e": 3}}
    changed = put(data, ("a", 0, "b"), 9)

    assert {"a": [{"b": 1}, {"c": 2}], "d": {"e": 3}} == data
    assert {"a": [{"b": 9}, {"c": 2}], "d": {"e": 3}} == changed
    assert data["d"] is changed["d"]
    assert get(data, ("a", 5, "b")) is None


@pytest.mark.parametrize(
    ("data", "route"),
    [
        ({"id": "x", "choices": [{"index": 3, "delta": {"role": "assistant", "content": "a"}}], "usage": {}}, "chat"),
        ({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 2, "function": {"arguments": "{"}}]}}]}, "chat"),
        ({"choices": [{"index": 1, "text": "a", "logprobs": None}]}, "completions"),
        ({"type": "response.output_text.delta", "output_index": 1, "content_index": 2, "delta": "a"}, "responses"),
        ({"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "a"}}, "messages"),
    ],
)
def test_a_continuation_adds_to_the_same_lane_and_ends_nothing(data, route):
    (span,) = texts(data, route)
    more = continuation(data, span, "more")
    (again,) = texts(more, route)

    assert (span.lane, "more") == (again.lane, again.text)
    assert [] == ended(more, route)
    assert "usage" not in more


@pytest.mark.parametrize(
    ("request_", "route", "expected"),
    [
        (
            {"messages": [{"role": "user", "content": "a"}, {"content": [{"type": "text", "text": "b"}]}]},
            "chat",
            ["a", "b"],
        ),
        ({"messages": [{"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]}, "chat", ["{}"]),
        ({"messages": [{"content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}]}, "chat", []),
        ({"prompt": ["a", "b"], "suffix": "c"}, "completions", ["a", "b", "c"]),
        ({"prompt": [1, 2]}, "completions", []),
        ({"instructions": "a", "input": [{"content": [{"type": "input_text", "text": "b"}]}]}, "responses", ["a", "b"]),
        ({"input": [{"type": "function_call_output", "output": "c"}]}, "responses", ["c"]),
        (
            {"system": [{"text": "a"}], "messages": [{"content": [{"type": "tool_result", "content": "b"}]}]},
            "messages",
            ["a", "b"],
        ),
        ({"messages": [{"content": [{"type": "tool_use", "input": {"x": "y"}}]}]}, "messages", ['{"x":"y"}']),
        ({"input": ["a", "b"]}, "embeddings", ["a", "b"]),
        ({"messages": "?"}, "raw", []),
    ],
)
def test_requests_tell_what_a_client_wrote(request_, route, expected):
    assert expected == [span.text for span in request_texts(request_, route)]


@pytest.mark.parametrize("route", ["chat", "completions", "responses", "messages", "embeddings", "raw"])
@pytest.mark.parametrize(
    "data",
    [
        {},
        {"choices": None, "output": 1, "content": "x", "type": 3},
        {"choices": [None, 1, {"delta": None}, {"index": [], "delta": {"content": 5, "tool_calls": {"a": 1}}}]},
        {"type": "response.output_text.delta", "output_index": {}, "delta": None, "item": 1, "part": []},
        {"type": "content_block_delta", "index": "x", "delta": [], "content_block": None},
        {"type": "response.completed", "response": {"output": [{"content": [{"type": []}]}]}},
    ],
)
def test_nonsense_from_an_upstream_has_no_text_and_raises_nothing(data, route):
    assert [] == texts(data, route)
    ended(data, route)


def test_lanes_can_be_keys():
    assert {Lane(0, "content"): 1} == {Lane(0, "content", 0): 1}
    assert msgspec.json.encode(Lane(0, "content")) == b'[0,"content",0]'
