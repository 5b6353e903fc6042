"""What clients, records and ledgers are told, where answers end badly, late, or in a way of their own."""

import asyncio
import json

import pytest
from tests.plugins.verify.test_trace import registered
from tests.plugins.verify.test_verify_plugin import FULL, PREFILLS, REST, WRONG, asking, plugins, run
from tests.plugins.verify.wary import PASS, Does, Forbids, Sums

from predawn.plugins import Chunk, Exchange, Plugin, PluginSettings, Verdict, hookimpl
from predawn.plugins.testing import Answer, Script, run_plugin, workbench
from predawn.plugins.verify import VerifySettings
from predawn.plugins.verify.modes.flow import Flow
from predawn.plugins.verify.result import result_of
from predawn.plugins.verify.running import Running


class Within(Plugin[PluginSettings]):
    """Stands between verification and the upstream, and does something to the chunks."""

    def __init__(self, change):
        super().__init__(PluginSettings())
        self.change = change

    @hookimpl
    async def around_completion(self, exchange, call_next):
        reply = await call_next(exchange)
        return reply.with_chunks(self.change(reply.chunks))


class Forks(Does):
    def fork(self, prefix):
        return " So far:", 5


@pytest.mark.parametrize("stream", [True, False])
async def test_observing_says_so_in_the_head(stream):
    result = await run("Fine.", Sums(), mode="observe", stream=stream)

    assert result.headers["x-predawn-verify"] == "observe"


@pytest.mark.parametrize("stream", [True, False])
async def test_what_is_asked_about_the_last_step_of_an_observed_answer_is_answered_and_paid(stream):
    seen = []
    verifier = Forks("forks", lambda step, _: seen.append((step.text, step.forked)) or PASS, reads=("content",))
    request = asking(**(FULL if stream else {}))
    script = Script.of("It is 7.", "8")
    result = await run(script, verifier, mode="observe", stream=stream, config=PREFILLS, request=request)

    assert seen == [("It is 7.", "8")]
    assert result.ledger.verify > 0
    assert result.ledger.all_output == result.upstream.counts.output_tokens


@pytest.mark.parametrize("mode", ["gate", "optimistic"])
async def test_an_error_within_a_stream_is_told_once(mode):
    result = await run(Answer(text="One. Two.", fault="error_event"), Sums(), mode=mode)

    assert result.raw.count(b'"error"') == 1
    assert b"[DONE]" not in result.raw


@pytest.mark.parametrize("stream", [True, False])
async def test_a_chunk_that_breaks_a_plugin_further_in_ends_the_answer(stream):
    async def breaks(chunks):
        async for chunk in chunks:
            yield chunk
            raise KeyError("no")

    result = await run_plugin(
        [*plugins(Sums()), Within(breaks)], "hi", upstream="One. Two.", stream=stream, strict=False
    )

    assert result.outcome != "ok"
    assert b"[DONE]" not in result.raw


@pytest.mark.parametrize("body", ['{"choices": 5}', "[]", '{"choices": [7]}'])
async def test_a_body_that_is_no_answer_breaks_nothing(body):
    for mode in ("observe", "gate"):
        result = await run(Answer(body=body), Sums(), mode=mode, stream=True)

        assert result.outcome in ("ok", "upstream_error", "truncated")


async def test_a_model_that_reads_no_feedback_is_asked_the_same_again():
    result = await run(
        Script.of(WRONG, "Fine."), Sums(), then="retry", tells_why=False, stream=False, request=asking(seed=5)
    )

    assert result.text == "Fine."
    assert result.sent.json["messages"] == asking()["messages"]
    assert result.sent.json["seed"] == 6
    assert result_of(result.exchange).ways == ["again"]


@pytest.mark.parametrize("config", [None, PREFILLS])
async def test_where_nothing_is_kept_and_nothing_told_the_same_is_asked_again(config):
    verifier = Forbids(boundary="sentence")
    result = await run(Script.of("A secret. B.", "Fine."), verifier, mode="intervene", tells_why=False, config=config)

    assert result.text == "Fine."
    assert result.sent.json["messages"] == asking()["messages"]


async def test_a_wrong_call_is_not_mended_by_allowing_what_was_forbidden():
    verifier = Does("calls", lambda step, _: PASS if step.tool_call is None else None, fails="closed")
    verifier.reads, verifier.boundary = ("tool_call",), "tool_call"
    wrong = Answer(tool_calls=({"name": "rm", "arguments": {}},))
    request = asking(tools=[{"type": "function", "function": {"name": "rm"}}], tool_choice="none")
    result = await run(Script.of(wrong, "Well."), verifier, mode="intervene", request=request)

    assert result.text == "Well."
    assert result.sent.json["tool_choice"] == "none"


async def test_a_prompt_that_cannot_be_gone_on_with_ends_the_answer_by_its_own_name():
    async with workbench(*plugins(Sums(), mode="intervene"), upstream=WRONG) as bench:
        result = await bench.run({"prompt": [1, 2], "max_tokens": 50}, route="completions", stream=True)

    assert result.body["choices"][0]["finish_reason"] == "content_filter"
    assert result_of(result.exchange).word == "stopped"


async def test_an_answer_that_used_up_its_tokens_is_not_gone_on_with():
    answer = Answer(pieces=("One.", " 1 + 1 = 3."))
    given = {"mode": "intervene", "correction": "remark", "config": PREFILLS}
    result = await run(answer, Sums(), request=asking(max_tokens=2), **given)

    assert len(result.requests) == 1
    assert result.text == "One. 1 + 1 = 3. Wait: 1 + 1 = 2."
    assert result.body["choices"][0]["finish_reason"] == "length"


async def test_a_verdict_about_text_that_is_gone_does_not_count():
    gate = asyncio.Event()

    class Late(Sums):
        async def verify(self, step, exchange):
            if step.index < 3:
                gate.set() if step.index == 2 else await gate.wait()
            return await super().verify(step, exchange)

    text = "1 + 1 = 3. 2 + 2 = 5. 3 + 3 = 7. End"
    result = await run(Script.of(text, " Well."), Late(), mode="intervene", config=PREFILLS)

    assert result_of(result.exchange).corrections == result_of(result.exchange).violations
    assert "= 3" not in result.text
    assert result.ledger.all_output == result.upstream.counts.output_tokens


@pytest.mark.parametrize("mode", ["gate", "observe", "optimistic"])
async def test_a_client_that_leaves_leaves_a_record(mode):
    script = Script(text="One. " * 50, interval_ms=10)
    result = await run_plugin(plugins(Sums(), mode=mode), "hi", upstream=script, stream=True, disconnect_after=2)
    told = [one.what for one in result.exchange.decisions if one.by == "verify"]

    assert result.outcome == "client_closed"
    assert len(told) == 1


async def test_an_upstream_does_not_run_ahead_of_its_client_without_end():
    from predawn.plugins.verify import streaming

    sent = 0

    async def endless(chunks):
        nonlocal sent
        async for chunk in chunks:
            data = chunk.data
            if data and data["choices"] and data["choices"][0]["delta"].get("content"):
                break
        while True:
            sent += 1
            yield Chunk.of({"id": "x", "choices": [{"index": 0, "delta": {"content": "One. "}, "finish_reason": None}]})

    class Slow(Plugin[PluginSettings]):
        """A client that has stopped reading, as verification sees it."""

        @hookimpl
        async def around_completion(self, exchange, call_next):
            reply = await call_next(exchange)

            async def some():
                async for chunk in reply.chunks:
                    yield chunk
                    for _ in range(50 * streaming.MOST_UNSENT):
                        if sent > 20 * streaming.MOST_UNSENT:
                            break
                        await asyncio.sleep(0)
                    break

            return reply.with_chunks(some())

    chosen = [Slow(PluginSettings()), *plugins(Sums(), mode="optimistic"), Within(endless)]
    await run_plugin(chosen, "hi", upstream="x", stream=True, strict=False)

    assert 0 < sent <= 2 * streaming.MOST_UNSENT


async def test_steps_by_the_thousand_do_not_hold_up_the_loop():
    body = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "a\n" * 200_000}}]}
    reads = Does("reads", lambda *_: PASS)
    reads.boundary = "line"
    for mode in ("observe", "gate"):
        result = await run_plugin(
            plugins(reads, mode=mode), "hi", upstream=Answer(body=json.dumps(body)), blocking_s=0.2
        )

        assert result.text == "a\n" * 200_000


async def test_a_continued_answer_is_one_answer():
    result = await run(Script.of(WRONG, REST), Sums(), mode="intervene", request=asking(**FULL), config=PREFILLS)
    roles = [
        chunk.data["choices"][0]["delta"].get("role") for chunk in result.chunks if chunk.data and chunk.data["choices"]
    ]

    assert roles.count("assistant") == 1
    assert len({chunk.data["id"] for chunk in result.chunks if chunk.data}) == 1


@pytest.mark.parametrize(("tells_why", "way"), [(None, "feedback"), (False, "again"), (True, "feedback")])
async def test_a_model_is_told_why_unless_it_is_better_not(tells_why, way):
    result = await run(Script.of(WRONG, "Fine."), Sums(), then="retry", tells_why=tells_why, stream=False)

    assert result_of(result.exchange).ways == [way]


def test_the_bundled_model_is_asked_the_same_again():
    settings = VerifySettings(verifiers=("sums",), mode="gate", then="retry")
    running = Running(settings, None, {"sums": registered(Sums())}, frozenset({"tiny"}))
    plans = {alias: running.plan_for(asked_of(alias)) for alias in ("tiny", "big")}

    assert [plans[alias].tells_why for alias in ("tiny", "big")] == [False, True]


def asked_of(alias):
    exchange = Exchange(b"{}", model=alias)
    exchange.alias = alias
    return exchange


async def test_a_correction_of_an_empty_completion_is_text():
    def speaks(step, _):
        return PASS if step.before + step.text else Verdict("violation", "", "Say something.", "It is 42.")

    script = Script.of(Answer(text=""), " Bye.")
    async with workbench(*plugins(Does("speaks", speaks), mode="intervene"), upstream=script) as bench:
        result = await bench.run({"prompt": "Q:"}, route="completions", stream=True)

    assert result.text == "It is 42. Bye."


async def test_tokens_of_an_answer_that_was_begun_again_are_those_of_its_last_beginning():
    script = Script.of(WRONG, " Bob = 7. 2 + 2 = 5. So.", "All is well.")
    rules = {"mode": "intervene", "corrections": 1, "then": "retry", "config": PREFILLS, "stream": False}
    result = await run(script, Sums(), request=asking(max_tokens=50), **rules)
    ledger = result.ledger

    assert result.text == "All is well."
    assert [asked.json["max_tokens"] for asked in result.requests] == [50, 47, 50]
    assert result.usage["completion_tokens"] == ledger.output == 3
    assert ledger.all_output == result.upstream.counts.output_tokens


async def test_what_a_second_cut_takes_of_the_first_call_is_discarded():
    told = asyncio.Event()

    async def late(step, exchange):
        if step.text == " 1 + 1 = 3.":
            await told.wait()
        elif "So" in step.text:
            told.set()
        return await Sums().verify(step, exchange)

    script = Script.of("Well. 1 + 1 = 3. 2 + 2 = 5. Then.", " So. On.", " Bye.")
    result = await run(script, Does("late", late), mode="intervene", config=PREFILLS, request=asking(**FULL))

    assert result.text == "Well. 1 + 1 = 2. Bye."
    assert result.usage["completion_tokens"] == result.ledger.output == 2
    assert result.ledger.all_output == result.upstream.counts.output_tokens


@pytest.mark.parametrize("fails", ["open", "closed"])
async def test_checks_that_nobody_made_are_no_pass(fails):
    def last_breaks(step, _):
        if step.is_last:
            raise RuntimeError("no")
        return PASS

    result = await run("One. Two.", Does("breaks", last_breaks, fails=fails), mode="gate", request=asking(**FULL))
    found = result_of(result.exchange)

    assert found.word == ("unsure" if fails == "open" else "stopped")
    assert found.as_field.endswith(";missed=1")
    assert result.usage["predawn"]["verify"]["missed"] == 1


@pytest.mark.parametrize("wish", [{"corrections": 0}, {"mode": "gate"}, {"corrections": 0, "retries": 0}])
async def test_a_guard_that_puts_right_cannot_be_wished_to_let_through(wish):
    rules = {"mode": "intervene", "then": "accept", "requests_may_relax": False, "config": PREFILLS}
    wished = asking(predawn={"verify": wish})
    result = await run(Script.of(WRONG, REST), Sums(), request=wished, **rules)

    assert "= 8" not in result.text


async def test_a_guard_can_be_wished_to_be_stricter():
    rules = {"mode": "observe", "then": "accept", "requests_may_relax": False}
    wished = asking(predawn={"verify": {"mode": "gate", "then": "stop"}})
    result = await run(WRONG, Sums(), request=wished, **rules)

    assert result.text == "Bob is small."


async def test_a_check_that_is_passed_over_while_another_is_acted_upon_has_its_turn():
    class Wordy(Sums):
        fails = "closed"

        async def verify(self, step, exchange):
            right = "One. Two. Three. Four. 3 + 4 = 7."
            return Verdict("violation", "", "No.", right) if "8" in step.text else PASS

    limits = {"checks_per_answer": 1, "checks_waiting": 2, "corrections": 3, "config": PREFILLS}
    script = Script.of("3 + 4 = 8. So.", *[" Bye."] * 9)
    result = await run(script, Wordy(), mode="intervene", request=asking(**FULL), **limits)
    found = result_of(result.exchange)

    assert (result.outcome, found.missed > 0) == ("ok", True)
    assert "8" not in result.text
    assert len(result.requests) == len(found.ways) + 1
    assert result.ledger.all_output == result.upstream.counts.output_tokens


@pytest.mark.parametrize("stream", [True, False])
async def test_a_fault_of_verification_itself_ends_the_answer_instead_of_holding_it_for_ever(stream, monkeypatch):
    monkeypatch.setattr(Flow, "settled", lambda self, check: 1 / 0)
    request = asking(**(FULL if stream else {}))

    with pytest.raises(Exception, match="raised by plugin 'verify'"):
        await run("One. Two.", Sums(), mode="gate", request=request, stream=stream)
