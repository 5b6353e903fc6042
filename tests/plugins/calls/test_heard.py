from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.plugins import Chunk
from predawn.plugins.calls import Heard, TokenLogprob
from predawn.proxy.wire.fold import BodyChunk
from predawn.proxy.wire.sse import EventSplitter, event_chunk


def heard_of(*deltas: dict[str, Any], route: Any = "chat") -> Heard:
    heard = Heard(route)
    for delta in deltas:
        heard.saw(Chunk.of({"choices": [{"index": 0, "delta": delta}]}))
    return heard


def test_texts_are_put_together_by_what_they_are() -> None:
    heard = heard_of(
        {"role": "assistant", "content": ""},
        {"reasoning_content": "3 + "},
        {"reasoning": "4"},
        {"content": "It is "},
        {"content": "7."},
        {"refusal": "No."},
    )

    assert (heard.reasoning, heard.text, heard.refusal) == ("3 + 4", "It is 7.", "No.")
    assert heard.output_tokens == 5


def test_tool_calls_are_folded_by_index() -> None:
    heard = heard_of(
        {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "add", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"x":'}}]},
        {"tool_calls": [{"index": 1, "id": "b", "function": {"name": "sub", "arguments": "{}"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]},
    )

    assert heard.tool_calls == [
        {"id": "a", "type": "function", "function": {"name": "add", "arguments": '{"x":1}'}},
        {"id": "b", "function": {"name": "sub", "arguments": "{}"}},
    ]


def test_choices_are_heard_apart() -> None:
    heard = Heard()
    for index, said in ((0, "a"), (1, "b"), (0, "c"), (2, "d")):
        heard.saw(Chunk.of({"choices": [{"index": index, "delta": {"content": said}}]}))
    heard.saw(Chunk.of({"choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}]}))

    assert {index: choice.text for index, choice in heard.choices.items()} == {0: "ac", 1: "b", 2: "d"}
    assert {index: choice.finish_reason for index, choice in heard.choices.items()} == {0: None, 1: "stop", 2: None}
    assert heard.output_tokens == 4


def test_log_probabilities_come_with_their_alternatives_and_count_tokens() -> None:
    heard = Heard()
    tokens = [
        {
            "token": "a",
            "logprob": -0.1,
            "top_logprobs": [{"token": "a", "logprob": -0.1}, {"token": "b", "logprob": -2}],
        },
        {"token": "c", "logprob": -3, "top_logprobs": []},
    ]
    heard.saw(Chunk.of({"choices": [{"delta": {"content": "ac"}, "logprobs": {"content": tokens}}]}))

    assert heard.logprobs == [TokenLogprob("a", -0.1, (("a", -0.1), ("b", -2.0))), TokenLogprob("c", -3.0)]
    assert heard.output_tokens == 2


def test_log_probabilities_of_completions_are_the_same() -> None:
    heard = Heard("completions")
    told = {"tokens": ["a", "c"], "token_logprobs": [None, -3.0], "top_logprobs": [None, {"c": -3.0}]}
    heard.saw(Chunk.of({"choices": [{"text": "ac", "logprobs": told}]}))

    assert heard.text == "ac"
    assert heard.logprobs == [TokenLogprob("c", -3.0, (("c", -3.0),))]


def test_without_log_probabilities_there_are_none() -> None:
    assert heard_of({"content": "a"}).logprobs is None


def test_the_usage_counts_once_it_is_there() -> None:
    heard = heard_of({"content": "a"})
    heard.saw(Chunk.of({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 42}}))
    heard.saw(event_chunk(b"data: [DONE]\n\n"))

    assert (heard.output_tokens, heard.is_whole) == (42, True)
    assert heard.usage is not None
    assert heard.usage.prompt == 9


def test_of_an_unfinished_answer_never_fewer_tokens_count_than_came() -> None:
    heard = Heard()
    for word in "abc":
        usage = {"prompt_tokens": 9, "completion_tokens": 1}
        heard.saw(Chunk.of({"choices": [{"delta": {"content": word}}], "usage": usage}))

    assert heard.output_tokens == 3


def test_a_whole_body_is_heard_like_a_stream() -> None:
    heard = Heard()
    heard.saw(
        BodyChunk(
            b'{"choices":[{"index":0,"message":{"role":"assistant","content":"twelve letters and more",'
            b'"tool_calls":[{"id":"a","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"stop"}]}'
        )
    )

    assert (heard.text, heard.finish_reason, heard.is_whole) == ("twelve letters and more", "stop", True)
    assert heard.tool_calls[0]["function"]["name"] == "f"
    assert heard.output_tokens == 5


def test_parts_of_content_are_text_and_thought() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    heard = heard_of({"content": [thinking, {"type": "text", "text": "yes"}]})

    assert (heard.reasoning, heard.text) == ("hm", "yes")


MESSAGES = (
    b'event: message_start\ndata: {"type":"message_start","message":{"content":[],"usage":{"input_tokens":7,'
    b'"output_tokens":1}}}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hel"}}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"lo"}}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":5}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)


def test_messages_are_heard_too() -> None:
    heard = Heard("messages")
    for raw in EventSplitter().feed(MESSAGES):
        heard.saw(event_chunk(raw))

    assert (heard.text, heard.finish_reason, heard.is_whole, heard.output_tokens) == ("Hello", "end_turn", True, 5)
    assert heard.usage is not None
    assert heard.usage.prompt == 7


def test_responses_are_heard_too_and_their_repetitions_are_not_counted_twice() -> None:
    heard = Heard("responses")
    heard.saw(Chunk.of({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Hel"}))
    heard.saw(Chunk.of({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "lo"}))
    whole = {"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}
    heard.saw(
        Chunk.of(
            {
                "type": "response.completed",
                "response": {"output": [whole], "usage": {"input_tokens": 3, "output_tokens": 2}},
            }
        )
    )

    assert (heard.text, heard.counted_tokens) == ("Hello", 2)
    assert heard.usage is not None
    assert heard.usage.prompt == 3


def test_an_error_in_the_stream_is_kept() -> None:
    heard = Heard()
    heard.saw(Chunk.of({"error": {"message": "overloaded"}}))

    assert heard.error == "overloaded"


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "delta", "content", "usage", "index", "logprobs", "tool_calls", "text", "token", "error"]
                + [
                    "logprob",
                    "tokens",
                    "token_logprobs",
                    "top_logprobs",
                    "finish_reason",
                    "message",
                    "response",
                    "type",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("route", ["chat", "completions", "responses", "messages"])
@given(
    datas=st.lists(
        st.dictionaries(st.sampled_from(["choices", "usage", "error", "delta", "type", "response"]), anything)
    )
)
def test_whatever_an_upstream_sends_is_heard_without_harm(route: Any, datas: list[dict[str, Any]]) -> None:
    heard = Heard(route)
    for data in datas:
        heard.saw(Chunk.of(data))

    for choice in heard.choices.values():
        assert isinstance(choice.text + choice.reasoning + choice.refusal, str)
        assert choice.logprobs is None or all(isinstance(token.logprob, float) for token in choice.logprobs)
        assert all(isinstance(call, dict) for call in choice.tool_calls)
    assert heard.output_tokens >= 0


@given(pieces=st.lists(st.text(max_size=4)), reads=st.sets(st.integers(0, 20)))
def test_reading_in_between_changes_nothing(pieces: list[str], reads: set[int]) -> None:
    heard = Heard()
    for at, piece in enumerate(pieces):
        heard.saw(Chunk.of({"choices": [{"index": 0, "delta": {"content": piece}}]}))
        if at in reads:
            assert heard.text == "".join(pieces[: at + 1])

    assert heard.text == "".join(pieces)
