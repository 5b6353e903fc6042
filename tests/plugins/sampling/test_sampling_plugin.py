"""`sampling` in the whole proxy: what is sent, what comes back, what it costs, and what happens when things go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predawn.plugins import (
    Budget,
    CallNext,
    Exchange,
    Extracted,
    Plugin,
    RegisterExtractor,
    Reply,
    RequestError,
    Verdict,
    hookimpl,
)
from predawn.plugins.sampling import SamplingPlugin, SamplingSettings, result_of
from predawn.plugins.testing import (
    Answer,
    ManualClock,
    Received,
    RunResult,
    Script,
    ScriptedUpstream,
    ToolCall,
    run_plugin,
    workbench,
)
from predawn.proxy.clock import SystemClock
from predawn.proxy.dispatch import HookError
from predawn.proxy.upstreams.scripted.stage import Choose

QUESTION: Mapping[str, Any] = {"messages": [{"role": "user", "content": "How much is 6 times 7?"}]}


def provider(*answers: Answer | str, clock: ManualClock | None = None) -> ScriptedUpstream:
    return ScriptedUpstream(Script.of(*answers), clock=clock)


async def ask(
    sampling: Any, *answers: Answer | str, choose: Choose | None = None, stream: bool = False, **more: Any
) -> RunResult:
    request = {**QUESTION, **more, "predawn": {"sampling": sampling}}
    upstream = ScriptedUpstream(Script.of(*answers), choose=choose)
    return await run_plugin(SamplingPlugin, request, upstream=upstream, stream=stream)


def vote(samples: int, **more: Any) -> dict[str, Any]:
    return {"strategy": "vote", "samples": samples, "epsilon": 1e-6, **more}


# -- what is chosen


@pytest.mark.parametrize("stream", [False, True])
async def test_the_majority_is_the_answer(stream: bool) -> None:
    result = await ask(vote(5), "It is 41.", "It is 42.", "It is 42.", "It is 42.", "It is 42.", stream=stream)

    assert result.status == 200
    assert result.text == "It is 42."


async def test_nine_42_against_one_3_14_are_42() -> None:
    result = await ask(vote(10), *["The answer is 42."] * 9, "The answer is 3.14.")

    assert result.text == "The answer is 42."


async def test_texts_that_begin_alike_are_no_options() -> None:
    texts = ["A good way to begin the day", "A different way entirely", "Another thing altogether"]
    result = await ask(vote(3, fallback="single"), *texts)

    assert result.text in texts
    assert result.headers["x-predawn-stopped"] == "incomparable"
    assert "x-predawn-agreement" not in result.headers


async def test_tool_calls_vote_by_name_and_arguments() -> None:
    def call(city: str) -> Answer:
        return Answer(tool_calls=(ToolCall(name="weather", arguments={"city": city, "unit": "C"}),), text=None)

    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
    result = await ask(vote(3), call("Ulm"), call("Bonn"), call("Bonn"), tools=[tool])

    assert "Bonn" in result.message["tool_calls"][0]["function"]["arguments"]
    assert result.body["choices"][0]["finish_reason"] == "tool_calls"


async def test_an_answer_cut_off_does_not_win_against_whole_ones() -> None:
    cut = Answer(text="It is 41", finish_reason="length")
    result = await ask(vote(3), cut, "It is 42.", "It is 42.")

    assert result.text == "It is 42."


# -- what is sent


async def test_everything_but_seed_and_warmth_reaches_every_sample() -> None:
    more: dict[str, Any] = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this? User: Assistant:"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
                ],
            },
        ],
        "tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}],
        "tool_choice": "none",
        "response_format": {"type": "json_object"},
        "max_completion_tokens": 77,
        "stop": ["\n\n"],
        "temperature": 0.4,
        "seed": 11,
        "unknown_member": {"a": [1, 2.0]},
    }
    result = await ask(vote(3, min_samples=3), *['{"answer": 42}'] * 3, **more)
    sent = [received.json for received in result.requests]

    assert [body.pop("seed") for body in sent] == [11, 12, 13]
    for body in sent:
        assert body.pop("stream") is True
        assert body.pop("stream_options") == {"include_usage": True}
        assert body == {"model": "test", **{name: value for name, value in more.items() if name != "seed"}}


async def test_samples_are_warmed_only_where_they_would_all_be_equal() -> None:
    async def temperature(sampling: Any, **more: Any) -> Any:
        result = await ask(sampling, *["42"] * 4, **more)
        return [received.json.get("temperature") for received in result.requests]

    assert await temperature(vote(2)) == [0.8, 0.8]
    assert await temperature(vote(2), temperature=0) == [0.8, 0.8]
    assert await temperature(vote(2), temperature=0.1) == [0.1, 0.1]
    assert await temperature(vote(2, temperature=1.2)) == [1.2, 1.2]
    assert await temperature(vote(2, temperature=1.2), temperature=0.1) == [1.2, 1.2]
    assert await temperature({"samples": 1}) == [None]
    assert set(await temperature({"strategy": "revise", "rounds": 2})) == {None}


async def test_what_was_changed_is_on_the_record() -> None:
    result = await ask(vote(2), "42", "42")
    detail = result.exchange.decisions[-1].detail

    assert detail["temperature"] == 0.8
    assert [received.json["seed"] for received in result.requests] == [detail["seed"], detail["seed"] + 1]


async def test_a_provider_that_knows_no_seed_is_asked_as_the_client_asked() -> None:
    def choose(received: Received) -> Answer | str:
        return Answer(status=400) if "seed" in received.json else "It is 42."

    result = await ask(vote(3), choose=choose)

    assert result.status == 200
    assert result.text == "It is 42."
    assert result.sent.json == {"model": "test", **QUESTION}


async def test_one_sample_is_the_clients_own_request() -> None:
    body = b'{ "model":"test", "messages" :[{"role":"user","content":"hi"}], "odd":1.0 }'
    result = await run_plugin(SamplingPlugin, body, upstream="hello")

    assert result.sent.body == body
    assert result.exchange.decisions == []
    assert result_of(result.exchange) is None
    assert "x-predawn-samples" not in result.headers


async def test_n_of_the_client_keeps_its_meaning() -> None:
    result = await ask(vote(5), Answer(texts=("one", "two", "three")), n=3)

    assert result.texts == ["one", "two", "three"]
    assert len(result.requests) == 1
    assert result.exchange.decisions[-1].detail == {"why": "the client asked for n choices"}


@pytest.mark.parametrize(
    ("route", "body"), [("completions", {"prompt": "6 * 7 ="}), ("responses", {"input": "How much is 6 times 7?"})]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_other_endpoints_vote_too(route: Any, body: dict[str, Any], stream: bool) -> None:
    request = {**body, "predawn": {"sampling": vote(3)}}
    upstream = provider("It is 41.", "It is 42.", "It is 42.")
    result = await run_plugin(SamplingPlugin, request, upstream=upstream, route=route, stream=stream)

    assert result.status == 200
    assert result.text == "It is 42."
    assert len(result.requests) == 3


async def test_messages_pass_and_the_record_says_so() -> None:
    request = {**QUESTION, "max_tokens": 50, "predawn": {"sampling": vote(3)}}
    result = await run_plugin(SamplingPlugin, request, upstream="It is 42.", route="messages")

    assert len(result.requests) == 1
    assert result.exchange.decisions[-1].what == "passed through"


# -- n where the prompt is read once


SHARED: Mapping[str, Any] = {
    "models": [{"name": "*", "upstream": "scripted"}, {"name": "wide", "upstream": "scripted", "shared_prefill": True}]
}


async def wide(*texts: str, stream: bool = False, **answer: Any) -> RunResult:
    wish = vote(len(texts), min_samples=len(texts))
    request = {**QUESTION, "model": "wide", "predawn": {"sampling": wish}}
    upstream = ScriptedUpstream(Answer(texts=texts, **answer))
    return await run_plugin(SamplingPlugin, request, upstream=upstream, stream=stream, config=SHARED)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_upstream_that_shares_its_prefill_is_asked_once(stream: bool) -> None:
    result = await wide("It is 41.", "It is 42.", "It is 42.", stream=stream)

    assert len(result.requests) == 1
    assert result.sent.json["n"] == 3
    assert result.texts == ["It is 42."]
    assert result.body["choices"][0]["index"] == 0
    assert result.headers["x-predawn-samples"] == "3"


async def test_tokens_of_the_other_choices_are_discarded() -> None:
    result = await wide("It is 41.", "It is 42.", "It is just 42.")

    assert result.usage["completion_tokens"] == 3
    assert result.usage["predawn"]["discarded_tokens"] == result.upstream.stage.counts.output_tokens - 3
    assert result.ledger.prompt == result.upstream.stage.counts.prompt_tokens


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_is_ended_when_nobody_wants_its_other_choices(stream: bool) -> None:
    wish = {"strategy": "first_m_of_k", "samples": 3, "first": 2}
    request = {**QUESTION, "model": "wide", "predawn": {"sampling": wish}}
    upstream = ScriptedUpstream(Answer(texts=("It is 42.", "word " * 300, "It is 42."), interval_ms=1))
    result = await run_plugin(SamplingPlugin, request, upstream=upstream, stream=stream, config=SHARED)
    counts = upstream.stage.counts

    assert len(result.requests) == 1
    assert result.texts == ["It is 42."]
    assert result.finished
    assert result.outcome == "ok"
    assert counts.cut == 1
    assert counts.output_tokens < 20
    assert result.ledger.output == 3
    assert result.ledger.all_output == pytest.approx(counts.output_tokens, abs=2)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_choice_that_has_ended_survives_its_call(stream: bool) -> None:
    result = await wide("It is 42.", "It is 42.", "word " * 30, stream=stream, fault="die_mid_event", after=14)

    assert result.texts == ["It is 42."]
    assert (result.status, result.outcome, result.finished) == (200, "ok", True)
    assert result.headers["x-predawn-samples"] == "3"


class Passes(Plugin):
    """Says of the last choice of every call that something in it is right, and of the others that nothing is."""

    @hookimpl
    async def around_completion(self, exchange: Exchange, call_next: CallNext) -> Reply:
        reply = await call_next(exchange)
        last = exchange.request.get("n", 1) - 1
        exchange.verdicts += [Verdict("violation", verifier="passes", choice=choice) for choice in range(last)]
        exchange.verdicts.append(Verdict("pass", verifier="passes", choice=last))
        return reply


@pytest.mark.parametrize(("model", "choice"), [("narrow", 0), ("wide", 1)])
async def test_what_was_said_of_one_choice_is_held_for_that_one_only(model: str, choice: int) -> None:
    wish = {"strategy": "best_of", "samples": 6, "min_samples": 2}
    request = {**QUESTION, "model": model, "predawn": {"sampling": wish}}
    plugins: list[Any] = [SamplingPlugin(SamplingSettings()), Passes]
    upstream = ScriptedUpstream(choose=lambda _: Answer(texts=("It is 41.", "It is 42.")[-1 - choice :]))
    result = await run_plugin(plugins, request, upstream=upstream, config=SHARED)
    found = result_of(result.exchange)
    assert found is not None

    assert (result.texts, found.choice, found.drawn) == (["It is 42."], choice, 2)
    assert result.headers["x-predawn-stopped"] == "verified"


# -- what it costs


@pytest.mark.parametrize("stream", [False, True])
async def test_no_token_is_missing_from_the_usage(stream: bool) -> None:
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if stream else {}
    answers = ("It is 41, I think.", "It is 42.", "It is 42.", "It is 42.")
    result = await ask(vote(4), *answers, stream=stream, **options)
    told, counts = result.usage, result.upstream.stage.counts

    assert told["completion_tokens"] == 3
    assert told["completion_tokens"] + told["predawn"]["discarded_tokens"] == counts.output_tokens
    assert told["prompt_tokens"] + told["predawn"]["discarded_prompt_tokens"] == counts.prompt_tokens
    assert result.ledger.all_output == counts.output_tokens
    assert result.ledger.all_prompt == counts.prompt_tokens


async def test_a_stream_that_ends_without_a_mark_tells_its_usage_all_the_same() -> None:
    answers = [Answer(text="It is 42.", fault="no_done")] * 3
    result = await ask(vote(3), *answers, stream=True, stream_options={"include_usage": True})

    assert str(result.usage["predawn"]["samples"]) == result.headers["x-predawn-samples"]
    assert result.usage["completion_tokens"] == 3


async def test_usage_is_not_told_to_a_stream_that_did_not_ask() -> None:
    result = await ask(vote(3), "42", "42", "42", stream=True)

    assert not any((chunk.data or {}).get("usage") for chunk in result.chunks)
    assert result.ledger.output == 1


async def test_the_record_tells_how_the_answer_was_chosen() -> None:
    result = await ask(vote(4), "It is 41.", "It is 42.", "It is 42.", "It is 42.")
    found = result_of(result.exchange)

    assert found is not None
    assert (found.strategy, found.drawn, found.agreement, found.answer) == ("vote", 4, 0.75, "42")
    assert found.tokens == result.upstream.stage.counts.output_tokens
    assert result.headers["x-predawn-strategy"] == "vote"
    assert result.headers["x-predawn-samples"] == "4"
    assert result.headers["x-predawn-agreement"] == "0.75"


# -- when it stops


def slow(text: str, ms: float) -> Answer:
    return Answer(text=text, interval_ms=ms)


async def test_losers_are_given_up_upstream_the_moment_the_vote_is_settled() -> None:
    long = " ".join(["word"] * 1000)
    quick = [slow("It is 42.", 1)] * 4
    result = await ask({"strategy": "first_m_of_k", "samples": 6, "first": 4}, *quick, slow(long, 1), slow(long, 1))
    counts = result.upstream.stage.counts

    assert result.text == "It is 42."
    assert counts.cut == 2
    assert counts.in_flight == 0
    assert counts.output_tokens < 4 * 3 + 2 * 12
    assert result.ledger.all_output == pytest.approx(counts.output_tokens, abs=2)


async def test_given_up_samples_stop_costing_within_100_ms() -> None:
    interval_s, losers = 0.02, 4
    slow_ones = [slow("word " * 500, 1000 * interval_s)] * losers
    upstream = provider(*[slow("It is 42.", 1)] * 2, *slow_ones)
    wish = {"strategy": "first_m_of_k", "samples": 2 + losers, "first": 2}
    began = perf_counter()
    await run_plugin(SamplingPlugin, {**QUESTION, "predawn": {"sampling": wish}}, upstream=upstream)
    answered_s = perf_counter() - began
    counts = upstream.stage.counts

    assert counts.cut == losers
    assert counts.in_flight == 0
    assert counts.output_tokens <= 2 * 3 + losers * ((answered_s + 0.1) / interval_s + 1)


async def test_what_votes_taught_is_kept_for_the_next_request_of_the_tenant() -> None:
    upstream = provider(*["It is 42."] * 400)
    drawn: list[int] = []
    async with workbench(SamplingPlugin, upstream=upstream) as bench:
        for _ in range(20):
            result = await bench.run({**QUESTION, "predawn": {"sampling": {"strategy": "confidence"}}})
            drawn.append(int(result.headers["x-predawn-samples"]))

    assert (drawn[0], drawn[-1]) == (3, 1)


async def test_a_model_that_refuses_members_of_our_own_is_soon_asked_without_them() -> None:
    def choose(received: Received) -> Answer:
        return Answer(status=400) if b'"seed"' in received.body else Answer(text="It is 42.")

    upstream = ScriptedUpstream(Script.of(), choose=choose)
    async with workbench(SamplingPlugin, upstream=upstream) as bench:
        results = [await bench.run({**QUESTION, "predawn": {"sampling": vote(2)}}) for _ in range(5)]
    refused = [one for one in results[-1].requests if b'"seed"' in one.body]

    assert len(refused) == 3 * 2
    assert [result.headers.get("x-predawn-samples") for result in results] == [None] * 3 + ["2"] * 2


async def test_a_client_that_leaves_ends_every_sample() -> None:
    upstream = provider(*[slow("word " * 500, 5)] * 8)
    request = {**QUESTION, "predawn": {"sampling": vote(8)}}
    result = await run_plugin(SamplingPlugin, request, upstream=upstream, stream=True, disconnect_after=0)

    assert upstream.stage.counts.in_flight == 0
    assert upstream.stage.counts.output_tokens < 100
    assert result.outcome == "client_closed"
    assert result.ledger.discarded == result.ledger.all_output
    assert result.exchange.decisions[-1].detail["cancelled"] == len(result.requests)
    assert "failed" not in result.exchange.decisions[-1].detail


@settings(max_examples=25)
@given(
    samples=st.integers(2, 6),
    leaves_after=st.integers(0, 12),
    stream=st.booleans(),
    strategy=st.sampled_from(["vote", "first_m_of_k", "confidence", "waves", "hedge", "revise", "best_of", "judge"]),
    answers=st.lists(
        st.one_of(
            st.builds(slow, st.sampled_from(["It is 42.", "It is 41.", "I do not know"]), st.integers(0, 9)),
            st.builds(lambda status: Answer(status=status), st.sampled_from([400, 429, 500])),
            st.builds(
                lambda fault, after: Answer(text="It is 42.", fault=fault, after=after),
                st.sampled_from(["die_mid_event", "no_done", "error_event", "garbage", "die_first_byte"]),
                st.integers(0, 3),
            ),
        ),
        min_size=1,
        max_size=8,
    ),
)
def test_whatever_happens_no_call_outlives_its_request(
    samples: int, leaves_after: int, stream: bool, strategy: str, answers: list[Answer]
) -> None:
    async def run() -> None:
        upstream = ScriptedUpstream(Script(answers=tuple(answers), cycle=True))
        wish = {"strategy": strategy, "samples": samples} if strategy != "revise" else "revise"
        result = await run_plugin(
            SamplingPlugin,
            {**QUESTION, "predawn": {"sampling": wish}},
            upstream=upstream,
            stream=stream,
            disconnect_after=leaves_after if leaves_after < 8 else None,
        )
        counts = upstream.stage.counts

        assert counts.in_flight == 0
        assert counts.opened == counts.closed
        # of a stream that is cut off events are counted: its opening, end and usage, too
        assert result.done is None or result.ledger.all_output <= counts.output_tokens + 3 * counts.requests

    asyncio.run(run())


async def test_an_endless_sample_does_not_hold_up_a_vote_that_is_settled() -> None:
    endless = Answer(text="It is 41.", fault="stall_mid_stream", after=2)
    result = await ask({"strategy": "first_m_of_k", "samples": 3, "first": 2}, endless, "It is 42.", "It is 42.")

    assert result.text == "It is 42."


class Deadline(Plugin):
    """Gives every request three samples and a second."""

    @hookimpl
    async def allocate(self, exchange: Exchange) -> Budget | None:
        return Budget(samples=3, deadline_s=1.0)


async def test_at_the_deadline_whoever_has_ended_is_the_answer() -> None:
    late = Answer(text="It is 41.", fault="stall_mid_stream", after=2)
    upstream = provider("It is 42.", late, late)
    result = await run_plugin([Deadline, SamplingPlugin(SamplingSettings(epsilon=1e-6))], QUESTION, upstream=upstream)

    assert result.text == "It is 42."
    assert result.headers["x-predawn-stopped"] == "late"
    assert result.exchange.decisions[-1].detail["wanted_by"] == "budget"


async def test_at_the_deadline_the_leader_is_the_answer_rather_than_the_first() -> None:
    late = Answer(text="It is 43.", fault="stall_mid_stream", after=2)
    upstream = provider("It is 41.", "It is 42.", "It is 42.", late)
    plan = SamplingSettings(epsilon=1e-6, min_samples=4)
    result = await run_plugin([Soon, SamplingPlugin(plan)], QUESTION, upstream=upstream)

    assert result.text == "It is 42."
    assert result.headers["x-predawn-stopped"] == "late"
    assert result.headers["x-predawn-agreement"] == "0.67"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_that_the_deadline_ends_is_not_drawn_again(stream: bool) -> None:
    """The calls of a request have the same deadline as its strategy; here they alone hear of it."""
    late = Answer(text="It is 43.", fault="stall_mid_stream", after=2)
    upstream = provider("It is 42.", late, "It is 43.", clock=ManualClock())
    async with workbench(Soon, SamplingPlugin, upstream=upstream, clock=Deaf(), blocking_s=None) as bench:
        result = await bench.run(QUESTION, stream=stream)

    assert result.text == "It is 42."
    assert result.headers["x-predawn-stopped"] == "late"
    assert len(result.requests) == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_the_deadline_cuts_off_is_no_answer(stream: bool) -> None:
    upstream = provider(Answer(text="one two three", fault="stall_mid_stream", after=2), clock=ManualClock())
    hedging = SamplingPlugin(SamplingSettings(strategy="hedge"))
    async with workbench(Hasty, hedging, upstream=upstream, clock=Deaf(), blocking_s=None) as bench:
        result = await bench.run(QUESTION, stream=stream)

    assert result.error["code"] == "upstream_timeout"
    assert result.exchange.status == 504
    assert not stream or not result.finished


class Hasty(Plugin):
    """Gives every request little time."""

    @hookimpl
    async def allocate(self, exchange: Exchange) -> Budget | None:
        return Budget(deadline_s=0.1)


class Deaf(SystemClock):
    """Wakes nobody."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.Event().wait()


class Soon(Plugin):
    """Gives every request some samples and little time."""

    @hookimpl
    async def allocate(self, exchange: Exchange) -> Budget | None:
        return Budget(samples=4, deadline_s=1.0)  # of real time in one test, and its first answer takes some


# -- what goes wrong


async def test_if_all_fail_the_first_failure_reaches_the_client_as_it_came() -> None:
    first = Answer(status=429, headers={"retry-after": "7"}, body='{"error":{"message":"slow down","code":"mine"}}')
    config = {"upstreams": [{"name": "scripted", "kind": "scripted", "retries": {"attempts": 1}}]}
    upstream = provider(first, Answer(status=500), Answer(status=500))
    request = {**QUESTION, "predawn": {"sampling": vote(3)}}
    result = await run_plugin(SamplingPlugin, request, upstream=upstream, config=config)

    assert result.status == 429
    assert result.headers["retry-after"] == "7"
    assert result.raw == b'{"error":{"message":"slow down","code":"mine"}}'


async def test_some_may_fail() -> None:
    broken = Answer(text="It is 41.", fault="die_mid_event", after=1)
    result = await ask(vote(4), broken, Answer(status=400), "It is 42.", "It is 42.")

    assert result.status == 200
    assert result.text == "It is 42."


async def test_a_lost_upstream_is_an_error_of_the_upstream() -> None:
    broken = Answer(text="It is 41.", fault="die_mid_event", after=1)
    result = await ask(vote(2), broken, broken)

    assert result.status == 502
    assert result.error["code"] == "upstream_error"


async def test_no_more_calls_run_side_by_side_than_the_settings_allow() -> None:
    upstream = provider(*[slow("It is 42.", 2)] * 9)
    request = {**QUESTION, "predawn": {"sampling": vote(9, epsilon=1e-9)}}
    await run_plugin(SamplingPlugin, request, upstream=upstream, settings={"at_once": 3})

    assert upstream.stage.counts.most_in_flight == 3


async def test_a_name_nobody_registered_is_refused() -> None:
    result = await ask(vote(3, answer="colour"), "red")

    assert result.status == 400
    assert result.error["param"] == "predawn.sampling.answer"
    assert len(result.requests) == 0


# -- strategies that need more than a vote


async def test_a_revision_sees_what_was_said_before() -> None:
    result = await ask({"strategy": "revise", "rounds": 3}, "It is 41.", "It is 42.", "It is 42.")
    second = result.requests[1].json["messages"]

    assert result.text == "It is 42."
    assert second[0] == QUESTION["messages"][0]
    assert "It is 41." in second[1]["content"]


async def test_a_slow_beginning_is_hedged() -> None:
    stalled = Answer(text="It is 41.", fault="stall_first_byte")
    result = await ask({"strategy": "hedge", "hedge_after_s": 0.5}, stalled, "It is 42.")

    assert result.text == "It is 42."
    assert len(result.requests) == 2
    assert result.requests[0].json == result.requests[1].json
    assert result.upstream.stage.counts.in_flight == 0


async def test_a_quick_beginning_is_not() -> None:
    result = await ask({"strategy": "hedge", "hedge_after_s": 0.5}, slow("It is 42.", 20))

    assert result.text == "It is 42."
    assert len(result.requests) == 1


async def test_a_hedged_stream_goes_out_while_it_grows() -> None:
    clock = ManualClock()
    upstream = ScriptedUpstream(slow("one two three four", 1000))
    request = {**QUESTION, "predawn": {"sampling": "hedge"}}
    async with workbench(SamplingPlugin, upstream=upstream, clock=clock) as bench:
        result = await bench.run(request, stream=True, disconnect_after=3)

    assert upstream.stage.counts.output_tokens < 4
    assert not result.finished


async def test_log_probabilities_asked_for_a_strategy_are_not_shown() -> None:
    result = await ask({"strategy": "confidence", "samples": 3}, *["It is 42."] * 3)

    assert result.sent.json["logprobs"] is True
    assert result.body["choices"][0]["logprobs"] is None


async def test_log_probabilities_the_client_wants_are() -> None:
    result = await ask({"strategy": "confidence", "samples": 3}, *["It is 42."] * 3, logprobs=True)

    assert result.body["choices"][0]["logprobs"]["content"]


@given(order=st.permutations(["It is 42."] * 3 + ["It is 41."] * 2 + ["It is 7."]))
@settings(max_examples=20)
def test_the_order_of_the_samples_does_not_change_the_vote(order: list[str]) -> None:
    result = asyncio.run(ask(vote(6), *order))

    assert result.text == "It is 42."


async def test_two_requests_at_once_do_not_mix() -> None:
    def choose(received: Received) -> str:
        return "It is 42." if "42" in received.text else "It is 41."

    upstream = ScriptedUpstream(Script(interval_ms=1), choose=choose)
    asked: Callable[[str], dict[str, Any]] = lambda text: {  # noqa: E731
        "messages": [{"role": "user", "content": text}],
        "predawn": {"sampling": vote(4)},
    }
    async with workbench(SamplingPlugin, upstream=upstream) as bench:
        results = await asyncio.gather(*(bench.run(asked(text)) for text in ("42?", "41?", "42?", "41?")))

    assert [result.text for result in results] == ["It is 42.", "It is 41.", "It is 42.", "It is 41."]


async def test_another_model_may_be_the_judge() -> None:
    def choose(received: Received) -> str:
        asked = received.json
        if asked["model"] == "critic":
            return "better: 1" if asked["messages"][-1]["content"].index("gold") < 700 else "better: 2"
        return "Dawn is gold." if asked["seed"] % 2 else "Dawn is grey."

    models = [{"name": "test", "upstream": "scripted"}, {"name": "critic", "upstream": "scripted"}]
    request = {**QUESTION, "predawn": {"sampling": {"strategy": "judge", "samples": 2}}}
    upstream = ScriptedUpstream(choose=choose)
    told = {"judge_model": "critic", "judge_tokens": 9}
    result = await run_plugin(SamplingPlugin, request, upstream=upstream, settings=told, config={"models": models})
    judges = [received.json for received in result.requests if received.json["model"] == "critic"]

    assert len(judges) == 2
    assert {(body["max_tokens"], body["temperature"]) for body in judges} == {(9, 0)}
    assert all(body["messages"][0] == QUESTION["messages"][0] for body in judges)
    assert result.exchange.model == "test"
    assert {call.alias for call in result.ledger.calls} == {"", "critic"}


# -- the rest of the wire


async def test_an_upstream_that_does_not_stream_votes_too() -> None:
    def body(text: str) -> Answer:
        message = {"role": "assistant", "content": text}
        usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return Answer(body={"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage, "own": 1})

    for stream in (False, True):
        result = await ask(
            vote(3, min_samples=3), body("It is 41."), body("It is 42."), body("It is 42."), stream=stream
        )

        assert result.text == "It is 42."
        assert result.finished
        if not stream:
            assert result.body["own"] == 1
            assert result.usage["completion_tokens"] == 3
            assert result.usage["predawn"]["discarded_tokens"] == 6


async def test_a_winner_that_is_lost_on_the_way_breaks_the_stream_off() -> None:
    lost = Answer(text="one two three four five six", fault="die_mid_event", after=4, interval_ms=5)
    result = await ask("hedge", lost, stream=True)

    assert not result.finished
    assert result.error
    assert result.outcome == "truncated"


async def test_eager_streams_settle_for_less() -> None:
    async def drawn(stream: str) -> int:
        wish = {"samples": 12, "epsilon": 0.001, "stream": stream}
        texts = ["It is 42."] * 12
        return len((await ask(wish, *texts, stream=True)).requests)

    assert await drawn("eager") < await drawn("wait")


async def test_a_hostile_sample_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("predawn.plugins.sampling.drawing.LARGEST_SAMPLE", 20_000)
    wish = {"strategy": "vote", "samples": 3, "min_samples": 3}
    result = await ask(wish, Answer(text="word " * 5000), "It is 42.", "It is 42.")

    assert result.text == "It is 42."
    assert result.upstream.stage.counts.cut == 1


async def test_answers_that_are_too_large_together_are_given_up_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("predawn.plugins.sampling.drawing.LARGEST_DRAWING", 20_000)
    large = Answer(text="word " * 60 + "The answer is 42.")
    result = await ask({"strategy": "vote", "samples": 3, "min_samples": 3}, large, large, large)

    assert result.text == large.text
    assert result.upstream.stage.counts.cut in {1, 2}


class Breaks:
    name = "breaks"

    def extract(self, text: str) -> Extracted | None:
        if "41" in text:
            raise ValueError("cannot read this")
        return Extracted({"no": "key"}, text) if "43" in text else Extracted(text, text)  # type: ignore[arg-type]


class BreaksPlugin(Plugin):
    @hookimpl
    def register_extractors(self, register: RegisterExtractor) -> None:
        register(Breaks())


async def test_an_extractor_that_breaks_says_nothing_and_harms_nobody() -> None:
    request = {**QUESTION, "predawn": {"sampling": vote(4, answer="breaks", min_samples=4)}}
    upstream = provider("It is 41.", "It is 43.", "It is 42.", "It is 42.")
    result = await run_plugin([SamplingPlugin(SamplingSettings()), BreaksPlugin], request, upstream=upstream)

    assert result.status == 200
    assert result.text == "It is 42."
    assert result.headers["x-predawn-agreement"] == "1.00"


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"verifier": "nobody"}, "no verifier"),
        ({"answer": "colour"}, "no extractor"),
        ({"judge_model": "gone"}, "is no alias"),
    ],
)
async def test_names_that_nothing_has_stop_the_start(told: dict[str, Any], words: str) -> None:
    config = {"models": [{"name": "test", "upstream": "scripted"}]}
    with pytest.raises(HookError) as caught:
        await run_plugin(SamplingPlugin, settings=told, config=config)

    assert words in str(caught.value.__cause__)


async def test_what_cannot_be_paid_is_refused_before_anything_is_sent() -> None:
    result, refused = await limited({"sampling": vote(10, min_samples=10)})

    assert (result.status, result.error["code"]) == (429, "budget_exceeded")
    assert refused == [9]
    assert len(result.requests) == 0


async def test_what_no_waiting_would_pay_is_drawn_as_far_as_there_is_room() -> None:
    result, refused = await limited({"sampling": vote(10, min_samples=10)}, room=3, waits=False)

    assert (result.status, result.text) == (200, "It is 42.")
    assert refused == [9, 4]
    assert len(result.requests) == 3
    assert result.headers["x-predawn-samples"] == "3"


async def test_one_answer_out_of_many_that_could_not_be_paid_agrees_with_nobody() -> None:
    result, _ = await limited({}, Budgeted)
    found = result_of(result.exchange)
    assert found is not None

    assert (found.drawn, found.agreement) == (1, None)


async def test_samples_that_only_a_budget_wanted_are_drawn_as_far_as_they_can_be_paid() -> None:
    result, refused = await limited({}, Budgeted)

    assert result.status == 200
    assert result.text == "It is 42."
    assert len(result.requests) == 1
    assert refused == [5, 2, 1]
    assert [decision.what for decision in result.exchange.decisions] == ["unaffordable", "answered"]


async def test_as_many_samples_are_drawn_as_can_be_paid() -> None:
    result, refused = await limited({}, Budgeted, room=2)

    assert result.text == "It is 42."
    assert len(result.requests) == 2
    assert refused == [5, 2]


class Budgeted(Plugin):
    """Ten samples for everybody."""

    @hookimpl
    async def allocate(self, exchange: Exchange) -> Budget | None:
        return Budget(samples=10)


async def limited(
    control: dict[str, Any], *more: type[Plugin], room: int = 1, waits: bool = True
) -> tuple[RunResult, list[int]]:
    """A request of a key that has room for so many calls, more of them after a while if it `waits`; and what was
    refused."""
    refused: list[int] = []
    left = room - 1

    class Full:
        async def extend(self, calls: int, prompt_tokens: int | None, output_tokens: int | None) -> None:
            nonlocal left
            if calls <= left:
                left -= calls
                return
            refused.append(calls)
            headers = {"retry-after": "20"} if waits else {}
            raise RequestError(429, "no room", type="rate_limit_error", code="budget_exceeded", headers=headers)

    class Poor(Plugin):
        @hookimpl
        async def around_completion(self, exchange: Exchange, call_next: CallNext) -> Reply:
            exchange.lease = Full()
            return await call_next(exchange)

    plugins: list[Any] = [*more, Poor, SamplingPlugin(SamplingSettings(epsilon=1e-6, min_samples=4))]
    request = {**QUESTION, "predawn": control}
    return await run_plugin(plugins, request, upstream="It is 42."), refused
