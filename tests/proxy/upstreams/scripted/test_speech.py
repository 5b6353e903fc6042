"""What is said by stream is what is said at once, in each API's own words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.proxy.exchange import RouteName
from predawn.proxy.upstreams.scripted import Answer, Received, Script
from predawn.proxy.upstreams.scripted.example import example
from predawn.proxy.upstreams.scripted.speech import tokens_of
from predawn.proxy.upstreams.scripted.stage import ROUTES, Stage
from predawn.proxy.wire.fold import fold
from predawn.proxy.wire.sse import EventSplitter, event_chunk

TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": {"properties": {"city": {"type": "string"}}}}},
    {"type": "function", "function": {"name": "clock", "parameters": {"properties": {"zone": {"enum": ["UTC"]}}}}},
]
PATHS: dict[RouteName, str] = {route: path for path, route in ROUTES.items()}
PROMPTS: dict[RouteName, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": "one two three"}]},
    "completions": {"prompt": "one two three"},
    "responses": {"input": "one two three"},
    "messages": {"messages": [{"role": "user", "content": "one two three"}], "max_tokens": 100},
}


def body_of(script: Script, route: RouteName, **request: Any) -> bytes:
    body = json.dumps({"model": "m", **PROMPTS[route], **request}).encode()
    plan = Stage(script).receive(Received("POST", PATHS[route], {}, body))
    return b"".join(step.data for step in plan.steps)


def whole(script: Script, route: RouteName = "chat", **request: Any) -> dict[str, Any]:
    return json.loads(body_of(script, route, **request))


def streamed(script: Script, route: RouteName = "chat", **request: Any) -> list[dict[str, Any]]:
    raw = body_of(script, route, stream=True, **request)
    return [data for event in EventSplitter().feed(raw) if (data := event_chunk(event).data) is not None]


ANSWERS = st.builds(
    dict,
    text=st.one_of(st.none(), st.text(alphabet="ab \n\u00e9", max_size=12)),
    reasoning=st.sampled_from(["", "let me think"]),
    tool_calls=st.sampled_from([None, ({"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}})]),
)


@pytest.mark.parametrize("route", ["chat", "completions", "responses", "messages"])
@given(answer=ANSWERS, limit=st.sampled_from([None, 3]), n=st.sampled_from([1, 2]))
def test_a_stream_folds_into_the_body_of_the_same_request(
    route: RouteName, answer: dict[str, Any], limit: int | None, n: int
) -> None:
    script = Script.read({"seed": 3, **{k: v for k, v in {"text": "x y", **answer}.items() if v is not None}})
    request: dict[str, Any] = {"n": n} if route in ("chat", "completions") else {}
    if limit is not None:
        request["max_output_tokens" if route == "responses" else "max_tokens"] = limit
    asked = {"stream_options": {"include_usage": True}} if route in ("chat", "completions") else {}

    folded = fold(streamed(script, route, **request, **asked), route)
    expected = whole(script, route, **request)

    for answered in (folded, expected):
        for choice in answered.get("choices", ()):
            choice.get("message", {}).pop("annotations", None)  # absent from OpenAI's streams
    assert folded == expected


@given(st.text())
def test_tokens_join_to_the_text(text: str) -> None:
    assert "".join(tokens_of(text)) == text


def test_equal_requests_hear_equal_answers_and_other_seeds_hear_others() -> None:
    assert body_of(Script(seed=1), "chat") == body_of(Script(seed=1), "chat")
    assert body_of(Script(seed=1), "chat") != body_of(Script(seed=2), "chat")


def test_choices_differ_unless_the_script_says_otherwise() -> None:
    made_up = whole(Script(), n=3)["choices"]
    told = whole(Script(texts=("a", "b")), n=3)["choices"]

    assert len({choice["message"]["content"] for choice in made_up}) == 3
    assert [choice["message"]["content"] for choice in told] == ["a", "b", "a"]


def test_usage_is_in_the_stream_only_if_it_was_asked_for() -> None:
    plain = streamed(Script(text="a b"))
    asked = streamed(Script(text="a b"), stream_options={"include_usage": True})

    assert not any("usage" in chunk for chunk in plain)
    assert [chunk["usage"] for chunk in asked[:-1]] == [None] * (len(asked) - 1)
    assert asked[-1]["choices"] == []
    assert asked[-1]["usage"]["completion_tokens"] == 2


def test_an_offered_tool_is_called_and_its_result_is_answered_in_words() -> None:
    called = whole(Script(), tools=TOOLS)["choices"][0]
    both = whole(Script(), tools=TOOLS, parallel_tool_calls=True)["choices"][0]
    named = whole(Script(), tools=TOOLS, tool_choice={"type": "function", "function": {"name": "clock"}})["choices"][0]
    refused = whole(Script(), tools=TOOLS, tool_choice="none")["choices"][0]
    after = whole(Script(), tools=TOOLS, messages=[{"role": "tool", "content": "sunny"}])["choices"][0]

    assert called["finish_reason"] == "tool_calls"
    assert [call["function"]["name"] for call in called["message"]["tool_calls"]] == ["weather"]
    assert json.loads(called["message"]["tool_calls"][0]["function"]["arguments"]) == {"city": "text"}
    assert [call["function"]["name"] for call in both["message"]["tool_calls"]] == ["weather", "clock"]
    assert [call["function"]["name"] for call in named["message"]["tool_calls"]] == ["clock"]
    assert "tool_calls" not in refused["message"]
    assert "tool_calls" not in after["message"]


def test_a_schema_is_obeyed() -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "parts": {"type": "array", "items": {"$ref": "#/$defs/part"}}},
        "$defs": {"part": {"anyOf": [{"type": "integer", "minimum": 4}, {"type": "null"}]}},
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "thing", "schema": schema}}

    said = whole(Script(), response_format=wanted)["choices"][0]["message"]["content"]
    plain = whole(Script(), response_format={"type": "json_object"})["choices"][0]["message"]["content"]

    assert json.loads(said) == {"name": "text", "parts": [4]}
    assert isinstance(json.loads(plain), dict)


def test_a_schema_that_refers_to_itself_ends() -> None:
    schema = {"properties": {"next": {"$ref": "#"}}}

    assert isinstance(example(schema), dict)


def test_log_probabilities_come_with_each_token() -> None:
    choice = whole(Script(text="a b"), logprobs=True, top_logprobs=2)["choices"][0]
    chunks = streamed(Script(text="a b"), logprobs=True)

    assert [entry["token"] for entry in choice["logprobs"]["content"]] == ["a", " b"]
    assert [len(entry["top_logprobs"]) for entry in choice["logprobs"]["content"]] == [2, 2]
    assert sum(len((chunk["choices"][0]["logprobs"] or {"content": []})["content"]) for chunk in chunks) == 2


def test_limits_and_stops_cut_the_answer() -> None:
    limited = whole(Script(text="a b c d"), max_completion_tokens=2)["choices"][0]
    stopped = whole(Script(text="a b STOP c"), stop=["STOP"])["choices"][0]

    assert (limited["message"]["content"], limited["finish_reason"]) == ("a b", "length")
    assert (stopped["message"]["content"], stopped["finish_reason"]) == ("a b ", "stop")


def test_image_and_audio_parts_are_accepted() -> None:
    content = [
        {"type": "text", "text": "what is this"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    ]

    answer = whole(Script(), messages=[{"role": "user", "content": content}])

    assert answer["usage"]["prompt_tokens"] == 3


def test_reasoning_is_thought_before_the_answer_and_counted() -> None:
    chunks = streamed(Script(text="42", reasoning="let me see"), stream_options={"include_usage": True})
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]

    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "let me see"
    assert chunks[-1]["usage"]["completion_tokens_details"]["reasoning_tokens"] == 3
    assert chunks[-1]["usage"]["completion_tokens"] == 4


def test_usage_can_be_made_to_say_anything() -> None:
    answer = whole(Script(text="a", usage={"completion_tokens": 99, "queue_time": 0.5}))

    assert answer["usage"]["completion_tokens"] == 99
    assert answer["usage"]["queue_time"] == 0.5


def test_named_events_and_no_end_marker_in_responses_and_messages() -> None:
    for route in ("responses", "messages"):
        raw = body_of(Script(text="a"), route, stream=True)
        events = [event_chunk(event) for event in EventSplitter().feed(raw)]

        assert all(event.event == event.data["type"] for event in events)
        assert events[-1].is_last
        assert b"[DONE]" not in raw


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/chat/completions", b"{", "could not parse"),
        ("/chat/completions", b"\xff\xfe", "could not parse"),
        ("/chat/completions", b"[]", "must be a JSON object"),
        ("/chat/completions", b'{"model": "m"}', "'messages'"),
        ("/embeddings", b'{"model": "m"}', "'input'"),
        ("/messages", b'{"model": "m", "messages": []}', "'max_tokens'"),
        ("/chat/completions", b'{"model": "m", "messages": [], "n": 1000}', "Invalid 'n'"),
        ("/chat/completions", b'{"model": "script:die_mid_evnt", "messages": []}', "did you mean"),
        ("/chat/completions", b'{"model": "m", "messages": [], "script": {"chunk": 1}}', "did you mean"),
    ],
)
def test_a_bad_request_is_told_why_in_the_shape_of_the_api(path: str, body: bytes, told: str) -> None:
    plan = Stage(Script()).receive(Received("POST", path, {}, body))
    error = json.loads(plan.steps[0].data)

    assert plan.status == 400
    assert told in error["error"]["message"]
    assert ("type" in error) == (path == "/messages")


@given(st.dictionaries(st.sampled_from(["model", "messages", "prompt", "input", "tools", "tool_choice", "n", "stop",
    "stream", "logprobs", "max_tokens", "response_format", "text", "system", "script"]),
    st.recursive(st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
                 lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "type", "name", "function", "parameters"]), inner, max_size=3), max_leaves=8)),
    st.sampled_from(list(ROUTES)))  # fmt: skip
def test_no_request_however_odd_raises(request: dict[str, Any], path: str) -> None:
    body = json.dumps({"model": "m", "messages": [], "prompt": "", "input": "", "max_tokens": 5, **request}).encode()

    plan = Stage(Script(chunks=2)).receive(Received("POST", path, {}, body))

    assert plan.status in (200, 400)


def test_an_answer_may_be_given_word_for_word() -> None:
    script = Script.of(Answer(body={"odd": True}), Answer(body="not json"), Answer(pieces=("a\n", "", "b")))
    stage = Stage(script)
    body = json.dumps({"model": "m", **PROMPTS["chat"]}).encode()
    said = [stage.receive(Received("POST", "/chat/completions", {}, body)).steps[0].data for _ in range(3)]

    assert said[0] == b'{"odd":true}'
    assert said[1] == b"not json"
    assert json.loads(said[2])["choices"][0]["message"]["content"] == "a\nb"
