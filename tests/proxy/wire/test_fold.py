import json

import pytest

from predawn.proxy.exchange import Chunk
from predawn.proxy.wire.fold import BodyChunk, body_of, events_of, fold
from predawn.proxy.wire.sse import event_chunk

CALLS = [
    {"id": "c1", "type": "function", "function": {"name": "a", "arguments": '{"x": 1}'}},
    {"id": "c2", "type": "function", "function": {"name": "b", "arguments": "{}"}},
]
BODY = {
    "id": "x",
    "object": "chat.completion",
    "created": 7,
    "model": "m",
    "system_fingerprint": "fp",
    "unknown": {"kept": [1.5]},
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": None, "tool_calls": CALLS},
            "finish_reason": "tool_calls",
        },
        {"index": 1, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"},
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
}


def delta(index=0, finish=None, **parts):
    return {
        "id": "x",
        "object": "chat.completion.chunk",
        "choices": [{"index": index, "delta": parts, "finish_reason": finish}],
    }


def test_pieces_of_text_reasoning_and_arguments_are_joined():
    events = [
        delta(role="assistant", content=""),
        delta(reasoning_content="th"),
        delta(reasoning_content="ink"),
        delta(content="a"),
        delta(content="b"),
        delta(tool_calls=[{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": '{"a"'}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": ":1}"}}]),
        delta(finish="tool_calls"),
    ]

    choice = fold(events, "chat")["choices"][0]

    assert {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": "ab",
            "reasoning_content": "think",
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}],
        },
        "finish_reason": "tool_calls",
    } == choice


def test_choices_keep_apart_and_in_order():
    events = [
        delta(1, content="b"),
        delta(0, content="a"),
        delta(1, content="B", finish="stop"),
        delta(0, finish="stop"),
    ]

    contents = [choice["message"]["content"] for choice in fold(events, "chat")["choices"]]

    assert ["a", "bB"] == contents


def test_logprobs_are_appended():
    event = delta(content="x")
    event["choices"][0]["logprobs"] = {"content": [{"token": "x", "logprob": -1}]}

    folded = fold([event, event], "chat")["choices"][0]["logprobs"]["content"]

    assert [{"token": "x", "logprob": -1}] * 2 == folded


def test_folding_does_not_change_the_events():
    events = [delta(content="a"), delta(content="b")]
    before = json.dumps(events)

    fold(events, "chat")

    assert before == json.dumps(events)


def test_a_body_turned_into_events_folds_back_into_itself():
    chunk = BodyChunk(json.dumps(BODY).encode())

    events = [event_chunk(raw) for raw in events_of(chunk, "chat", include_usage=True)]

    assert events[-1].is_last
    assert BODY == json.loads(body_of(events, "chat"))


def test_an_untouched_body_leaves_byte_for_byte():
    raw = json.dumps(BODY, indent=3).encode()

    assert raw == body_of([BodyChunk(raw)], "chat")


def test_a_changed_body_changes_only_there():
    raw = b'{"choices": [ {"message": {"content":"secret", "role":"assistant"}, "index": 0} ], "x": 1.0e2}'
    chunk = BodyChunk(raw)
    data = dict(chunk.data)
    data["choices"] = [{**data["choices"][0], "delta": {**data["choices"][0]["delta"], "content": "***"}}]

    expected = b'{"choices": [{"message": {"content":"***", "role":"assistant"}, "index": 0}], "x": 1.0e2}'

    assert expected == body_of([chunk.with_data(data)], "chat")


def test_a_responses_stream_folds_into_its_last_response():
    events = [
        {"type": "response.created", "response": {"status": "in_progress"}},
        {"type": "response.completed", "response": {"status": "completed"}},
    ]

    assert {"status": "completed"} == fold(events, "responses")


def test_a_messages_stream_folds_into_a_message():
    events = [
        {
            "type": "message_start",
            "message": {"id": "m", "content": [], "usage": {"input_tokens": 3, "output_tokens": 1}},
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "he"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "y"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}},
        },
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"a":'}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "1}"}},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    ]

    assert {
        "id": "m",
        "content": [{"type": "text", "text": "hey"}, {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}],
        "usage": {"input_tokens": 3, "output_tokens": 9},
        "stop_reason": "tool_use",
    } == fold(events, "messages")


def test_an_empty_stream_is_no_answer():
    with pytest.raises(ValueError, match="no chunk"):
        body_of([Chunk(b"data: [DONE]\n\n")], "chat")


def test_pieces_of_what_a_custom_tool_is_given_are_joined():
    begun = {"index": 0, "id": "c", "type": "custom", "custom": {"name": "run", "input": ""}}
    pieces = [{"index": 0, "custom": {"input": piece}} for piece in ("l", "s")]
    (choice,) = fold([delta(tool_calls=[one]) for one in (begun, *pieces)], "chat")["choices"]

    assert choice["message"]["tool_calls"] == [{"id": "c", "type": "custom", "custom": {"name": "run", "input": "ls"}}]


@pytest.mark.parametrize(
    ("said", "given"),
    [('{"a": 1}', {"a": 1}), ("", {}), ('{"a": [1, 2', {"a": [1, 2]}), ('{"a": 1, "b": "x', {"a": 1}), ("}", {})],
)
def test_a_call_that_was_cut_off_has_as_much_as_came(said, given):
    use = {"type": "tool_use", "id": "t", "name": "add", "input": {}}
    events = [
        {"type": "message_start", "message": {"content": []}},
        {"type": "content_block_start", "index": 0, "content_block": use},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": said}},
        {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}},
    ]

    assert fold(events, "messages")["content"] == [{**use, "input": given}]


def test_a_response_that_failed_on_the_way_is_no_response():
    events = [
        {"type": "response.created", "response": {"id": "x", "status": "in_progress", "output": []}},
        {"type": "error", "sequence_number": 1, "code": "server_error", "message": "no"},
    ]

    assert fold(events, "responses") == {"error": {"code": "server_error", "message": "no"}}


def test_a_name_that_is_left_empty_stays_what_it_was():
    calls = [{"index": 0, "function": {"name": name, "arguments": said}} for name, said in (("run", "{"), ("", "}"))]
    (choice,) = fold([delta(tool_calls=[one]) for one in calls], "chat")["choices"]

    assert choice["message"]["tool_calls"] == [{"function": {"name": "run", "arguments": "{}"}}]
