"""The plugin as a whole, in the proxy, without a socket: what clients get, what upstreams are asked, what it cost."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.plugins.verify.wary import PASS, BringsVerifiers, Calls, Does, Forbids, Sums

from predawn.plugins import Budget, Plugin, PluginSettings, Verdict, hookimpl
from predawn.plugins.calls import SideCall
from predawn.plugins.testing import Answer, Script, ToolCall, run_plugin, workbench
from predawn.plugins.verify import VerifyPlugin, VerifySettings
from predawn.plugins.verify.result import result_of
from predawn.proxy.dispatch import HookError

WRONG = "Bob is small. 3 + 4 = 8. Bob = 8. The answer is 8."
REST = " Bob = 7. So 7."
PREFILLS = {"models": [{"name": "*", "upstream": "scripted", "prefill": True}]}
MODES = ("observe", "optimistic", "gate", "intervene")
TOOLS = {"messages": [{"role": "user", "content": "go"}], "tools": [{"type": "function", "function": {"name": "add"}}]}
FULL = {"stream_options": {"include_usage": True}}


def plugins(*verifiers, mode="gate", **given):
    names = given.pop("verifiers", [one.name for one in verifiers])
    chosen = VerifySettings.model_validate({"verifiers": names, "mode": mode, **given})
    return [BringsVerifiers(*verifiers), VerifyPlugin(chosen)]


async def run(script, *verifiers, request="hi", stream=True, config=None, headers=None, strict=True, **given):
    return await run_plugin(
        plugins(*verifiers, **given),
        request,
        upstream=script,
        stream=stream,
        config=config,
        headers=headers,
        strict=strict,
    )


def asking(**more):
    return {"messages": [{"role": "user", "content": "hi"}], **more}


def deeds(result):
    return [
        one.detail["action"]
        for one in result.exchange.decisions
        if one.what == "violation" and one.detail.get("action")
    ]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("mode", MODES)
async def test_a_right_answer_is_not_touched(mode, stream):
    result = await run("One. Two. 3 + 4 = 7.", Sums(), mode=mode, stream=stream)

    assert result.text == "One. Two. 3 + 4 = 7."
    assert {verdict.outcome for verdict in result.exchange.verdicts} == {"pass"}
    assert result_of(result.exchange).word == "pass"


async def test_observing_leaves_every_byte_as_it_was():
    plain = await run_plugin([], "hi", upstream=WRONG, stream=True)
    seen = await run(WRONG, Sums(), mode="observe")

    assert seen.raw == plain.raw
    assert seen.sent.body == plain.sent.body
    assert deeds(seen) == ["flag"]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_gate_ends_before_the_violation_and_says_so(stream):
    result = await run(WRONG, Sums(), stream=stream, request=asking(**(FULL if stream else {})))
    (choice,) = result.body["choices"]

    assert choice["message"]["content"] == "Bob is small."
    assert choice["finish_reason"] == "content_filter"
    assert choice["predawn"]["stopped_by"] == "sums"
    assert result.usage["completion_tokens"] == 3
    assert result.usage["predawn"]["discarded_tokens"] == 12


@pytest.mark.parametrize("stream", [True, False])
async def test_intervening_continues_the_begun_message(stream):
    result = await run(Script.of(WRONG, REST), Sums(), mode="intervene", config=PREFILLS, stream=stream)

    assert result.text == "Bob is small. 3 + 4 = 7. Bob = 7. So 7."
    assert result.sent.json["messages"][-1] == {"role": "assistant", "content": "Bob is small. 3 + 4 = 7."}
    assert result.sent.json["continue_final_message"] is True
    assert result_of(result.exchange).ways == ["prefill"]
    assert len({chunk.data["id"] for chunk in result.chunks if chunk.data}) == (1 if stream else 0)


async def test_thoughts_are_put_right_before_the_answer_is_given():
    script = Script.of(Answer(reasoning=WRONG, text="8"), Answer(reasoning=" Bob = 7.", text="7"))
    result = await run(script, Sums(), mode="intervene", config=PREFILLS)

    assert result.text == "7"
    assert result.message["reasoning_content"] == "Bob is small. 3 + 4 = 7. Bob = 7."
    assert result.sent.json["messages"][-1]["reasoning_content"] == "Bob is small. 3 + 4 = 7."


async def test_a_remark_can_stand_after_the_wrong_step():
    script = Script.of(Answer(reasoning=WRONG, text="8"), Answer(reasoning=" Bob = 7.", text="7"))
    result = await run(script, Sums(), mode="intervene", config=PREFILLS, correction="remark")

    assert result.message["reasoning_content"] == "Bob is small. 3 + 4 = 8. Wait: 3 + 4 = 7. Bob = 7."


async def test_thoughts_that_were_sent_are_not_contradicted_silently():
    script = Script.of(Answer(reasoning=WRONG, text="8"), Answer(reasoning=" Bob = 7.", text="7"))
    result = await run(script, Sums(), mode="intervene", config=PREFILLS, holds="answer")
    thoughts = result.message["reasoning_content"]

    assert thoughts.startswith(WRONG[: len("Bob is small. 3 + 4 = 8.")])
    assert "Wait: 3 + 4 = 7." in thoughts
    assert result.text == "7"


async def test_raw_completions_go_on_from_the_prompt():
    bench_plugins = plugins(Sums(), mode="intervene")
    async with workbench(*bench_plugins, upstream=Script.of(WRONG, REST)) as bench:
        result = await bench.run({"prompt": "Q:", "max_tokens": 50}, route="completions", stream=True)

    assert result.text == "Bob is small. 3 + 4 = 7. Bob = 7. So 7."
    assert result.sent.json["prompt"] == "Q:Bob is small. 3 + 4 = 7."
    assert result.sent.json["max_tokens"] == 47


async def test_an_upstream_that_only_chats_is_asked_to_go_on():
    result = await run(Script.of(WRONG, REST), Sums(), mode="intervene")

    assert result.text == "Bob is small. 3 + 4 = 7. Bob = 7. So 7."
    assert [message["role"] for message in result.sent.json["messages"]] == ["user", "assistant", "user"]


async def test_an_upstream_that_refuses_a_prefill_is_asked_in_the_conversation():
    script = Script.of(Answer(text=WRONG), Answer(status=400), Answer(text=REST), Answer(text=WRONG), Answer(text=REST))
    async with workbench(*plugins(Sums(), mode="intervene"), upstream=script, config=PREFILLS) as bench:
        first = await bench.run("hi", stream=True)
        second = await bench.run("hi", stream=True)

    assert first.text == second.text == "Bob is small. 3 + 4 = 7. Bob = 7. So 7."
    assert result_of(first.exchange).ways == ["prefill", "feedback"]
    assert result_of(second.exchange).ways == ["feedback"]


async def test_a_begun_again_answer_takes_the_feedback_into_account():
    result = await run(Script.of(WRONG, "All is well."), Sums(), then="retry", stream=False, request=asking(seed=5))

    assert result.text == "All is well."
    assert "3 + 4 is 7." in result.sent.json["messages"][0]["content"]
    assert result.sent.json["seed"] == 6
    assert result.headers["x-predawn-verify"] == "corrected"
    assert result.usage["predawn"]["discarded_tokens"] == 15


async def test_every_token_is_on_the_ledger_once():
    result = await run(Script.of(WRONG, REST), Sums(), mode="intervene", config=PREFILLS, request=asking(**FULL))
    counts, ledger = result.upstream.counts, result.ledger

    assert ledger.all_output == counts.output_tokens
    assert ledger.all_prompt == counts.prompt_tokens
    assert result.usage["completion_tokens"] == ledger.output
    assert result.usage["predawn"]["discarded_tokens"] == ledger.discarded
    assert result.usage["predawn"]["verify"]["corrections"] == 1


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("mode", ["gate", "intervene"])
async def test_a_wrong_tool_call_never_reaches_the_client(mode, stream):
    wrong = Answer(text="Hm.", tool_calls=(ToolCall(name="rm", arguments={"path": "/"}),))
    right = Answer(tool_calls=(ToolCall(name="add", arguments={"a": 1}),))
    result = await run(Script.of(wrong, right), Calls(), mode=mode, stream=stream, request=TOOLS)

    assert b"rm" not in result.raw
    if mode == "gate":
        assert result.body["choices"][0]["finish_reason"] == "content_filter"
        return
    (call,) = result.message["tool_calls"]
    assert call["function"] == {"name": "add", "arguments": '{"a": 1}'}
    asked = result.sent.json["messages"]
    assert asked[-2]["tool_calls"][0]["function"]["name"] == "rm"
    assert asked[-1]["role"] == "tool"
    assert asked[-1]["tool_call_id"] == asked[-2]["tool_calls"][0]["id"]


@pytest.mark.parametrize("stream", [True, False])
async def test_choices_are_verified_apart(stream):
    script = Script(answers=(Answer(texts=("Fine.", WRONG)), Answer(text=REST)))
    result = await run(script, Sums(), mode="intervene", config=PREFILLS, stream=stream, request=asking(n=2))

    assert result.texts == ["Fine.", "Bob is small. 3 + 4 = 7. Bob = 7. So 7."]
    assert "n" not in result.sent.json
    assert result.ledger.all_output == result.upstream.counts.output_tokens


async def test_tokens_run_out_where_the_client_said():
    result = await run(
        Script.of(WRONG, REST), Sums(), mode="intervene", config=PREFILLS, request=asking(max_tokens=3), stream=False
    )

    assert len(result.requests) == 1
    assert result.body["choices"][0]["finish_reason"] in ("length", "stop")


async def test_a_refusal_is_relayed_as_it_came():
    result = await run(Answer(status=429, headers={"retry-after": "7"}), Sums(), stream=True)

    assert (result.status, result.headers["retry-after"]) == (429, "7")
    assert result.exchange.verdicts == []


async def test_an_answer_that_is_cut_off_says_so():
    result = await run(Answer(text="One. Two. Three.", fault="die_mid_event"), Sums())

    assert result.outcome == "truncated"
    assert result.error["code"] == "upstream_error"


@pytest.mark.parametrize("mode", MODES)
async def test_a_client_that_leaves_frees_everything(mode):
    begun, ended = [], []

    async def forever(step):
        begun.append(step.index)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(step.index)

    slow = Does("slow", lambda step, _: forever(step))
    script = Script(text="One. " * 50, interval_ms=10)
    result = await run_plugin(plugins(slow, mode=mode), "hi", upstream=script, stream=True, disconnect_after=1)

    assert result.outcome == "client_closed"
    assert result.upstream.counts.in_flight == 0
    assert sorted(begun) == sorted(ended)


async def test_a_verifier_that_fails_closed_stops_what_it_could_not_read():
    def raises(*_):
        raise RuntimeError("no")

    opened = await run("One.", Does("broken", raises))
    closed = await run("One.", Does("broken", raises, fails="closed"))

    assert (opened.text, opened.exchange.verdicts[0].outcome) == ("One.", "unsure")
    assert (closed.text, closed.body["choices"][0]["finish_reason"]) == ("", "content_filter")


async def test_a_fork_asks_what_the_model_thinks_so_far():
    seen = []

    class Forks(Does):
        def fork(self, prefix):
            return " So far:", 5

    def note(step, _):
        seen.append((step.text, step.forked))
        return PASS

    verifier = Forks("forks", note, reads=("content",))
    script = Script.of("The sum. ", "It is 7.", "8")
    result = await run(script, verifier, mode="gate", config=PREFILLS, request=asking(**FULL))
    asked = [request.json for request in result.requests[1:]]

    assert seen[0] == ("The sum.", "It is 7.")
    assert asked[0]["messages"][-1]["content"] == "The sum. So far:"
    assert asked[0]["max_tokens"] == 5
    assert result.ledger.verify > 0
    assert result.usage["predawn"]["verify_tokens"] == result.ledger.verify
    assert result.ledger.all_output == result.upstream.counts.output_tokens


async def test_forks_end_with_their_budget():
    class Forks(Does):
        def fork(self, prefix):
            return " So far:", 5

    seen = []
    verifier = Forks("forks", lambda step, _: seen.append(step.forked) or PASS, reads=("content",))
    await run(Script.of("One. Two. ", "x"), verifier, config=PREFILLS, verify_tokens=5)

    assert sum(said is not None for said in seen) == 1


async def test_a_request_may_choose_mode_and_verifiers():
    verifiers = (Sums(), Forbids("small", "sentence"))
    wish = {"predawn": {"verify": {"mode": "gate", "verifiers": ["forbids"]}}}
    result = await run(WRONG, *verifiers, mode="observe", request=asking(**wish))
    off = await run(WRONG, *verifiers, mode="gate", headers={"x-predawn-verify": "off"})

    assert result.text == ""
    assert off.text == WRONG
    assert off.exchange.verdicts == []


@pytest.mark.parametrize(
    "wish", ["maybe", 7, {"mode": "loud"}, {"verifiers": ["nobody"]}, {"corrections": -1}, {"models": []}]
)
async def test_a_wish_that_cannot_be_meant_is_refused(wish):
    result = await run("fine", Sums(), request=asking(predawn={"verify": wish}))

    assert result.status == 400
    assert result.error["param"].startswith("predawn.verify")


@pytest.mark.parametrize("wish", [False, "observe", {"verifiers": []}, {"then": "accept"}, {"corrections": 99}])
async def test_a_guard_cannot_be_wished_away(wish):
    given = {"requests_may_relax": False}
    result = await run(WRONG, Sums(), request=asking(predawn={"verify": wish}), **given)

    assert result.text == "Bob is small."


class Thrifty(Plugin[PluginSettings]):
    """Wants hard requests verified."""

    def __init__(self):
        super().__init__(PluginSettings())

    @hookimpl
    async def allocate(self, exchange):
        return Budget(verify="hard" in exchange.request["messages"][0]["content"])


async def test_a_budget_can_ask_for_verification():
    chosen = [Thrifty(), *plugins(Sums(), when="budget")]
    async with workbench(*chosen, upstream=WRONG) as bench:
        easy, hard = await bench.run("easy", stream=True), await bench.run("hard", stream=True)

    assert easy.text == WRONG
    assert hard.text == "Bob is small."


async def test_aliases_have_their_own_verifiers():
    config = {"models": [{"name": name, "upstream": "scripted"} for name in ("a", "b")]}
    entries = [{"sums": {"models": ["b"]}}]
    for alias, text in (("a", WRONG), ("b", "Bob is small.")):
        result = await run(WRONG, Sums(), request=asking(model=alias), config=config, verifiers=entries)

        assert result.text == text


async def test_an_unknown_verifier_stops_the_start():
    with pytest.raises(HookError, match="verify") as raised:
        await run_plugin(VerifyPlugin(VerifySettings(verifiers=["arithmetik"])), "hi")

    assert "arithmetik" in str(raised.value.__cause__)


@given(
    st.lists(st.sampled_from(["A", " 1 + 1 = 3", ".", " Yes.", "\n", "secret", " 2 + 2 = 4."]), max_size=10), st.data()
)
@settings(max_examples=25)
async def test_answers_and_verdicts_do_not_depend_on_chunks(words, data):
    text = "".join(words)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    told = []
    for said in ([text], pieces):
        answer = Answer(pieces=tuple(piece for piece in said if piece) or ("",))
        result = await run(answer, Sums(), Forbids(), mode="observe")
        verdicts = {(one.verifier, one.outcome, one.where) for one in result.exchange.verdicts}
        gated = await run(answer, Sums(), Forbids(), mode="gate", stream=False)
        told.append((verdicts, gated.body["choices"][0]["finish_reason"]))

    assert told[0] == told[1]


async def test_hostile_text_does_not_hold_up_the_loop():
    bait = "[" * 300_000 + "\n" * 300_000 + '{"\\' * 100_000
    result = await run_plugin(
        plugins(Does("reads", lambda *_: PASS), Forbids("never", "json")),
        "hi",
        upstream=Answer(pieces=(bait,)),
        stream=True,
        blocking_s=0.2,
    )

    assert result.text == bait


async def test_verdicts_reach_the_record():
    result = await run(WRONG, Sums(), mode="observe")
    last = result.exchange.decisions[-1]

    assert (last.by, last.what) == ("verify", "violation")
    assert last.detail["violations"] == 1
    assert all("8" not in str(one.detail) for one in result.exchange.decisions[:-1])


async def test_a_violation_is_flagged_where_that_is_the_policy():
    result = await run(WRONG, Sums(), mode="optimistic", then="accept")

    assert result.text == WRONG
    assert deeds(result) == ["flag"]
    assert Verdict("violation", "3 + 4 = 8", "3 + 4 is 7.", " 3 + 4 = 7.", "sums") in result.exchange.verdicts


async def test_a_sample_that_is_given_up_is_not_waited_for():
    class Samples(Plugin[PluginSettings]):
        @hookimpl
        async def around_completion(self, exchange, call_next):
            async with SideCall(exchange, call_next) as side:
                async for _ in side:
                    await side.cancel()
            return await call_next(exchange)

    never = Does("never", lambda step, _: asyncio.Event().wait() if step.text else PASS, timeout_s=600.0)
    chosen = [Samples(PluginSettings()), *plugins(never, mode="observe")]
    script = Script.of(Answer(text="One. " * 9, interval_ms=5), "")
    result = await run_plugin(chosen, "hi", upstream=script, headers={"x-predawn-verify": "observe"}, stream=True)

    assert result.ledger.calls[0].outcome == "cancelled"
