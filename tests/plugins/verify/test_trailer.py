"""What a client that asks for it is told behind a stream: how the verification of it went."""

import asyncio

import pytest
from tests.plugins.verify.test_verify_plugin import PREFILLS, REST, WRONG, plugins, run
from tests.plugins.verify.wary import PASS, Does, Sums

from predawn.plugins import Verdict
from predawn.plugins.testing import Answer, Script, run_plugin

ASKS = {"te": "trailers"}


@pytest.mark.parametrize("te", ["trailers", "gzip, Trailers", "deflate;q=0.5,trailers"])
async def test_an_observed_stream_ends_with_its_verdict(te):
    result = await run(WRONG, Sums(), mode="observe", headers={"te": te})

    assert result.headers["Trailer"] == "x-predawn-verified"
    assert result.trailers["x-predawn-verified"] == "violation;checks=4;violations=1"
    assert result.outcome == "ok"


async def test_the_verdict_waits_for_the_last_step():
    late = asyncio.Event()

    async def last(step, _):
        if step.is_last:
            asyncio.get_running_loop().call_later(0.02, late.set)
            await late.wait()
        return PASS

    result = await run("One. Two.", Does("late", last), mode="observe", headers=ASKS)

    assert result.trailers["x-predawn-verified"].startswith("pass;")
    assert late.is_set()


@pytest.mark.parametrize(("mode", "word"), [("gate", "stopped"), ("intervene", "corrected"), ("optimistic", "stopped")])
async def test_every_mode_says_how_it_went(mode, word):
    result = await run(Script.of(WRONG, REST), Sums(), mode=mode, headers=ASKS, config=PREFILLS)

    assert result.trailers["x-predawn-verified"].partition(";")[0] == word


@pytest.mark.parametrize("te", [{}, {"te": "gzip"}, {"te": "trailers-not"}])
async def test_who_does_not_ask_gets_the_same_bytes_as_ever(te):
    plain = await run_plugin([], "hi", upstream=WRONG, stream=True)
    result = await run(WRONG, Sums(), mode="observe", headers=te)

    assert "Trailer" not in result.headers
    assert (result.raw, dict(result.trailers)) == (plain.raw, {})


@pytest.mark.parametrize("mode", ["observe", "gate"])
async def test_an_answer_with_a_length_has_no_trailer(mode):
    result = await run("Fine.", Sums(), mode=mode, headers=ASKS, stream=False)

    assert "Content-Length" in result.headers
    assert "Trailer" not in result.headers


@pytest.mark.parametrize("mode", ["observe", "gate", "optimistic", "intervene"])
@pytest.mark.parametrize("fault", ["die_mid_event", "error_event"])
async def test_a_stream_that_was_cut_has_no_trailer(mode, fault):
    result = await run(Answer(text="One. Two. Three.", fault=fault), Sums(), mode=mode, headers=ASKS)

    assert "x-predawn-verified" not in result.trailers


@pytest.mark.parametrize("mode", ["observe", "gate", "optimistic", "intervene"])
@pytest.mark.parametrize("events", range(6))
async def test_a_client_that_leaves_gets_none_and_breaks_nothing(mode, events):
    chosen = plugins(Sums(), mode=mode)
    result = await run_plugin(
        chosen, "hi", upstream="One. Two.", stream=True, headers=ASKS, disconnect_after=events, strict=False
    )

    assert not result.trailers
    assert result.upstream.counts.in_flight == 0


async def test_a_client_that_leaves_with_its_whole_answer_leaves_a_whole_record():
    late = asyncio.Event()

    async def last(step, _):
        if step.is_last:
            asyncio.get_running_loop().call_later(0.05, late.set)
            await late.wait()
            return Verdict("violation")
        return PASS

    events = len((await run_plugin([], "hi", upstream="One. Two.", stream=True)).chunks)
    chosen = plugins(Does("late", last), mode="observe")
    given = {"upstream": "One. Two.", "stream": True, "headers": ASKS, "disconnect_after": events}
    result = await run_plugin(chosen, "hi", **given)
    told = [one.what for one in result.exchange.decisions if one.by == "verify" and "mode" in one.detail]

    assert not result.trailers
    assert (result.outcome, result.exchange.status) == ("ok", 200)
    assert told == ["violation"]


async def test_a_verifier_that_never_ends_holds_the_trailer_no_longer_than_its_time():
    never = Does("never", lambda step, _: asyncio.Event().wait(), timeout_s=0.02)
    result = await run("One. Two.", never, mode="observe", headers=ASKS)

    assert result.trailers["x-predawn-verified"].startswith("unsure;")
