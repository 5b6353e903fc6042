"""Requests from their JSON to the last count, with an engine that says what it is told to."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kernels.engine.scripted_worker import ScriptedEngine, desk_of

from predawn.kernels.engine.protocol import Ask, Began, Ended, Piece, Refused


def ask(number=1, kind="chat", salt=None, **members):
    body = {"messages": [{"role": "user", "content": members.pop("content", "hello")}]} if kind == "chat" else {}
    return Ask(number, kind, json.dumps({**body, **members}).encode(), salt)


def admit(desk, order):
    prepared = desk.prepare(order)
    return [prepared] if isinstance(prepared, Refused) else desk.admit(*prepared)


def answer(order, engine=None, **options):
    """All that is said to one request."""
    desk = desk_of(engine or ScriptedEngine(), **options)
    said = admit(desk, order)
    while not desk.idle:
        said += desk.step()
    return said


def texts(said):
    found = {}
    for piece in said:
        if isinstance(piece, Piece):
            found[piece.index] = found.get(piece.index, "") + piece.text
    return found


def test_an_answer_has_a_beginning_pieces_and_an_end():
    said = answer(ask(stream=True, stream_options={"include_usage": True}, content="[[4]]"))

    assert said == [
        Began(1, 1, True, True),
        Piece(1, 0, "4"),
        Piece(1, 0, finish="stop"),
        Ended(id=1, prompt=len("user: [[4]]\nassistant: "), cached=2, output=2, reasoning=0),
    ]


def test_without_streaming_each_choice_is_one_piece():
    said = answer(ask(content="[[four]]", n=2))

    assert [type(item) for item in said] == [Began, Piece, Piece, Ended]
    assert texts(said) == {0: "four", 1: "four"}
    assert said[-1].output == 10


def test_pieces_of_a_whole_answer_keep_their_scores():
    said = answer(ask(content="[[<think>a</think>b]]", logprobs=True, top_logprobs=1))
    (piece,) = [item for item in said if isinstance(item, Piece)]

    assert [score.text for score in piece.scores] == ["b"]
    assert [score.text for score in piece.reasoning_scores] == ["a"]
    assert piece.scores[0].top == [("b", b"b", -0.5)]


def test_thoughts_are_counted_among_the_output():
    said = answer(ask(content="[[so</think>4]]", enable_thinking=True))

    assert (said[1].reasoning, said[1].text) == ("so", "4")
    assert (said[-1].output, said[-1].reasoning) == (5, 3)


def test_many_prompts_are_numbered_one_after_another():
    said = answer(ask(kind="completions", prompt=["[[a]]", "[[b]]"], n=2))

    assert texts(said) == {0: "a", 1: "a", 2: "b", 3: "b"}
    assert said[-1] == Ended(id=1, prompt=10, cached=4, output=8, reasoning=0)


def test_an_echo_comes_before_the_answer():
    said = answer(ask(kind="completions", prompt=["[[a]]", "[[b]]"], echo=True, stream=True))

    assert said[1:3] == [Piece(1, 0, "[[a]]"), Piece(1, 1, "[[b]]")]
    assert texts(said) == {0: "[[a]]a", 1: "[[b]]b"}


def test_a_stop_string_ends_the_choice_in_the_engine():
    engine = ScriptedEngine()
    said = answer(ask(content="[[one two]] forever", stop=" t"), engine)

    assert texts(said) == {0: "one"}
    assert engine.cancelled[0] == ("1/0", 0)
    assert said[-1].output == len("one t")


def test_tokens_after_a_stop_string_in_the_same_step_do_not_count():
    said = answer(ask(content="[[one two three]]", stop="two"), ScriptedEngine(per_step=4))

    assert texts(said) == {0: "one "}
    assert said[-1].output == len("one two")


def test_an_answer_ends_where_it_may_not_go_on():
    assert answer(ask(content="[[abc]] forever", max_tokens=5))[1].finish == "length"
    assert answer(ask(kind="completions", prompt="[[abc]] forever"))[-1].output == 16


def test_an_answer_is_cut_to_the_context():
    said = answer(ask(content="[[abc]] forever", max_tokens=10_000), context=100)

    assert said[-1].prompt + said[-1].output == 100


def test_salt_reaches_the_engine():
    engine = ScriptedEngine()
    answer(ask(salt="tenant"), engine)

    assert engine.salts == ["tenant"]


@pytest.mark.parametrize(("said", "drafts"), [(None, True), (False, False), (True, True)])
def test_lookup_is_as_the_request_says_or_else_the_settings(said, drafts):
    desk = desk_of(ScriptedEngine(), lookup=True)
    _, (call,) = desk.prepare(ask(lookup=said))

    assert call.sampling.lookup is drafts


def test_parameters_reach_the_engine():
    given = {"temperature": 0, "top_p": 0.5, "top_k": 3, "min_p": 0.1, "seed": 7, "n": 2, "max_tokens": 9}
    given |= {"frequency_penalty": 1, "presence_penalty": -1, "repeat": 1, "width": 2, "ignore_eos": True}
    _, (call,) = desk_of(ScriptedEngine()).prepare(ask(**given, logit_bias={"65": 5}))

    assert {name: getattr(call.sampling, name) for name in given} == given
    assert call.sampling.logit_bias == {65: 5.0}


def test_all_of_the_likeliest_tokens_may_be_asked_for_in_two_ways():
    samplings = [desk_of(ScriptedEngine()).prepare(ask(top_k=top_k))[1][0].sampling for top_k in (-1, 0)]

    assert [sampling.top_k for sampling in samplings] == [0, 0]


@pytest.mark.parametrize(("member", "value"), [("repeat", 3), ("logit_bias", {"999": 1})])
def test_what_the_model_cannot_do_is_refused_by_its_name(member, value):
    (said,) = answer(ask(**{member: value}))

    assert (said.status, said.param) == (400, member)


def test_too_many_requests_are_refused_at_once():
    desk = desk_of(ScriptedEngine(max_batch=1, max_waiting=1))
    for number in (1, 2):
        admit(desk, ask(number, content="forever [[a]]"))
    (said,) = admit(desk, ask(3))

    assert (said.status, said.code, said.retry_after_s) == (429, "rate_limit_exceeded", 2.5)


def test_a_request_is_taken_whole_or_not_at_all():
    engine = ScriptedEngine(max_batch=1, max_waiting=2)
    desk = desk_of(engine)
    admit(desk, ask(content="forever [[a]]"))
    (said,) = admit(desk, ask(2, kind="completions", prompt=["a", "b", "c"]))

    assert said.status == 429
    assert [choice.key for choice in engine.active + engine.waiting] == ["1/0"]


def test_more_prompts_than_ever_could_be_taken_are_wrong():
    (said,) = answer(ask(kind="completions", prompt=["a", "b", "c"]), ScriptedEngine(max_batch=1, max_waiting=1))

    assert (said.status, said.param) == (400, "prompt")


def test_a_cancelled_request_says_nothing_more():
    desk = desk_of(ScriptedEngine())
    admit(desk, ask(stream=True, content="[[abc]]"))
    desk.step()
    desk.cancel(1)

    assert desk.idle
    assert desk.step() == []


def test_what_is_wrong_is_refused_before_the_engine_sees_it():
    engine = ScriptedEngine()
    (said,) = answer(Ask(1, "chat", b"{"), engine)

    assert (said.status, said.code) == (400, "invalid_json")
    assert engine.salts == []


def test_stats_tell_how_busy_the_engine_is():
    desk = desk_of(ScriptedEngine(max_batch=1))
    admit(desk, ask(n=3))
    stats = desk.stats()

    assert (stats.running, stats.waiting, stats.pages_used, stats.pages) == (1, 2, 1, 64)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "developer", "tool", "nobody"])},
    optional=dict.fromkeys(("content", "tool_calls", "reasoning_content", "name"), ANY),
)
MEMBERS = ("stop", "tools", "tool_choice", "chat_template_kwargs", "reasoning_effort", "response_format", "logit_bias")


@given(
    st.lists(MESSAGE, min_size=1, max_size=3),
    st.dictionaries(st.sampled_from(MEMBERS), ANY, max_size=2),
    st.dictionaries(
        st.sampled_from(["n", "max_tokens", "top_k", "seed", "logprobs", "width"]), st.integers(), max_size=2
    ),
)
def test_whatever_is_asked_it_is_answered_or_refused(messages, members, numbers):
    said = answer(Ask(1, "chat", json.dumps({"messages": messages, **members, **numbers}).encode()))

    assert isinstance(said[-1], Ended) or said[-1].status == 400


@given(ANY, st.dictionaries(st.sampled_from(["echo", "suffix", "best_of", "stop", "logprobs"]), ANY, max_size=2))
def test_whatever_is_to_be_continued_it_is_continued_or_refused(prompt, members):
    said = answer(ask(kind="completions", prompt=prompt, **members))

    assert isinstance(said[-1], Ended) or said[-1].status == 400


def test_a_request_that_is_nested_too_deeply_is_refused():
    nested = b"[" * 900 + b"]" * 900
    said = answer(Ask(1, "chat", b'{"messages":[{"role":"user","content":"a","x":' + nested + b"}]}"))

    assert isinstance(said[-1], Ended) or said[-1].status == 400
