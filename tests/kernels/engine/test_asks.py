import json

import pytest

from predawn.kernels.engine.asks import AskError, ChatAsk, CompletionAsk, read

HELLO = [{"role": "user", "content": "hello"}]


def chat(**members):
    return read("chat", json.dumps({"messages": HELLO, **members}).encode())


def completion(**members):
    return read("completions", json.dumps({"prompt": "once", **members}).encode())


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("n", 0), ("n", 129), ("n", 1.5), ("n", "2"), ("n", True),
        ("temperature", -0.1), ("temperature", 2.1), ("temperature", "hot"),
        ("top_p", 1.1), ("top_k", -2), ("min_p", -0.5), ("seed", 1 << 63), ("seed", "x"),
        ("max_tokens", 0), ("max_completion_tokens", -5),
        ("frequency_penalty", 2.5), ("presence_penalty", -2.5),
        ("logit_bias", {"5": 101}), ("logit_bias", []), ("top_logprobs", 21), ("logprobs", 3),
        ("stop", 5), ("stream", "yes"), ("stream_options", []), ("messages", []), ("messages", "hello"),
        ("messages", None), ("enable_thinking", "no"), ("width", 17), ("repeat", 0),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_by_its_name(param, value):
    with pytest.raises(AskError) as refused:
        chat(**{param: value})

    assert refused.value.param == param
    assert param in refused.value.message


def test_the_place_inside_of_a_member_is_named():
    with pytest.raises(AskError) as refused:
        chat(messages=[*HELLO, 5])

    assert refused.value.param == "messages[1]"


@pytest.mark.parametrize("stop", ["", ["a", ""], [str(number) for number in range(17)]])
def test_stop_strings_are_few_and_not_empty(stop):
    with pytest.raises(AskError) as refused:
        _ = chat(stop=stop).stops

    assert refused.value.param == "stop"


def test_biases_are_by_token_number():
    assert chat(logit_bias={"5": -100, "7": 1.5}).biases == {5: -100.0, 7: 1.5}
    with pytest.raises(AskError):
        _ = chat(logit_bias={"five": 1}).biases


@pytest.mark.parametrize(
    "members",
    [
        {"response_format": {"type": "json_object"}},
        {"functions": [{"name": "f"}]},
        {"modalities": ["text", "audio"]},
        {"tools": [{"type": "function"}], "tool_choice": "required"},
    ],
)
def test_what_cannot_be_done_is_refused_instead_of_left_out(members):
    with pytest.raises(AskError) as refused:
        chat(**members)

    assert refused.value.code == "unsupported_parameter"
    assert refused.value.param in members


@pytest.mark.parametrize("members", [{"suffix": "end"}, {"best_of": 3}, {"echo": True, "logprobs": 1}])
def test_what_completions_cannot_do_is_refused(members):
    with pytest.raises(AskError) as refused:
        completion(**members)

    assert (refused.value.code, refused.value.param in members) == ("unsupported_parameter", True)


def test_nulls_are_as_good_as_absent_and_unknown_members_are_skipped():
    everything = [*ChatAsk.__struct_fields__, "user", "service_tier", "something_new"]
    ask = chat(**dict.fromkeys(name for name in everything if name != "messages"))

    assert (ask.choices, ask.limit, ask.top, ask.stops, ask.wants_usage) == (1, None, None, (), False)


def test_harmless_values_of_what_is_not_supported_are_taken():
    chat(response_format={"type": "text"}, modalities=["text"], functions=[], tools=[], tool_choice="auto")
    completion(suffix="", best_of=1)


def test_logprobs_are_asked_for_in_both_dialects():
    assert [chat(logprobs=True).top, chat(logprobs=True, top_logprobs=5).top, chat(logprobs=False).top] == [0, 5, None]
    assert [completion(logprobs=0).top, completion(logprobs=3).top, completion().top] == [0, 3, None]
    with pytest.raises(AskError, match="top_logprobs needs logprobs"):
        _ = chat(top_logprobs=5).top


def test_the_newer_name_of_the_limit_goes_before_the_older():
    assert chat(max_tokens=5, max_completion_tokens=7).limit == 7
    assert completion().limit == 16


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
    ],
)
def test_prompts_come_in_four_forms(prompt, prompts):
    assert completion(prompt=prompt).prompts == prompts


@pytest.mark.parametrize("prompt", [[], ["a", 1], [1, [2]], ["a", [1]]])
def test_mixed_prompts_are_refused(prompt):
    with pytest.raises(AskError) as refused:
        _ = completion(prompt=prompt).prompts

    assert refused.value.param == "prompt"


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"stop": "\xff"}', b'{"x":' + b"[" * 5000])
def test_what_is_not_json_is_refused(body):
    with pytest.raises(AskError) as refused:
        read("chat", body)

    assert refused.value.code == "invalid_json"


def test_a_body_that_is_no_object_is_refused():
    with pytest.raises(AskError, match="expected `object`"):
        read("chat", b"[]")


def test_a_missing_member_is_named():
    with pytest.raises(AskError, match="You must provide prompt") as refused:
        read("completions", b"{}")

    assert refused.value.param == "prompt"
    assert isinstance(completion(), CompletionAsk)


def test_prompts_and_choices_are_limited_together():
    completion(prompt=["a"] * 128, n=2)
    with pytest.raises(AskError) as refused:
        completion(prompt=["a"] * 129, n=2)

    assert refused.value.param == "prompt"
    completion(prompt=list(range(5000)))
