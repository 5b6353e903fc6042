"""`observe` under attack: floods are read so far and no further, and nothing outlives the answer that it was for."""

import asyncio
import gc

import pytest
from tests.plugins.verify.test_verify_plugin import asking, plugins, run
from tests.plugins.verify.wary import PASS, Does

from predawn.plugins import Plugin, PluginSettings, hookimpl
from predawn.plugins.calls import SideCall
from predawn.plugins.calls.taking import Untaken
from predawn.plugins.testing import Answer, run_plugin, settle, workbench
from predawn.plugins.verify import VerifyPlugin, VerifySettings, observing, rounds, watching
from predawn.plugins.verify.observing import Observing
from predawn.plugins.verify.result import result_of
from predawn.plugins.verify.runner import Checks
from predawn.plugins.verify.streaming import Streaming
from predawn.plugins.verify.watching import Watching
from predawn.proxy.tasks import Tasks

ASKED = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "hello"}]}'
MADE = (Observing, Streaming, Watching, Checks, SideCall, Untaken)
FLOODS = {
    "blank lines": b"\n" * 400_000,
    "comments": b": x\n\n" * 80_000,
    "one event": b"data: " + b"x" * 400_000 + b"\n\n",
    "no event": b"x" * 400_000,
    "tokens": b'data: {"choices": [{"index": 0, "delta": {"content": "a. "}}]}\n\n' * 6_000,
}
END = b'data: {"choices": [{"index": 0, "delta": {"content": "b."}}]}\n\ndata: [DONE]\n\n'


@pytest.mark.parametrize("flood", FLOODS)
@pytest.mark.parametrize(("fails", "word"), [("open", "unsure"), ("closed", "violation")])
async def test_what_comes_faster_than_it_can_be_read_is_not_kept(flood, fails, word, monkeypatch):
    monkeypatch.setattr(observing, "MOST_UNREAD", 100_000)
    raw = FLOODS[flood] + END
    reads = Does("reads", lambda *_: PASS, fails=fails)
    result = await run(Answer(raw=(raw,)), reads, mode="observe", strict=False)
    last = result.exchange.verdicts[-1]

    assert result.raw == raw
    assert last.outcome == word
    assert "faster than it could be read" in last.feedback


async def test_a_body_that_is_too_large_is_not_kept(monkeypatch):
    monkeypatch.setattr(observing, "MOST_UNREAD", 1000)
    result = await run("One. " * 400, Does("reads", lambda *_: PASS), mode="observe", stream=False)

    assert result.text == "One. " * 400
    assert [one.outcome for one in result.exchange.verdicts] == ["unsure"]


def choices(count, of):
    """Chunks that go on with one of so many choices after the other."""
    said = b'data: {"choices": [{"index": %d, "delta": {"content": "Tick. "}}]}\n\n'
    return b"".join([said % (at % of) for at in range(count)]) + b"data: [DONE]\n\n"


@pytest.mark.parametrize("limit", ["MOST_READ", "FEW_CHOICES"])
async def test_an_answer_without_an_end_is_read_so_far(limit, monkeypatch):
    monkeypatch.setattr(observing if limit == "MOST_READ" else watching, limit, 300 if limit == "MOST_READ" else 2)
    monkeypatch.setattr(observing, "FEW_CHOICES", 2)
    seen = []
    raw = choices(100, of=1 if limit == "MOST_READ" else 100)
    reads = Does("reads", lambda step, _: seen.append(step.end) or PASS)
    result = await run(Answer(raw=(raw,)), reads, mode="observe", strict=False)

    assert result.raw == raw
    assert 0 < len(seen) < 20
    assert "too long to be read" in next(one.feedback for one in result.exchange.verdicts if one.outcome == "unsure")


@pytest.mark.parametrize("mode", ["gate", "optimistic"])
async def test_nobody_is_sent_more_choices_than_were_asked_for(mode):
    reads = Does("reads", lambda *_: PASS)
    given = {"mode": mode, "strict": False}
    many = await run(Answer(raw=(choices(200, of=200),)), reads, **given)
    asked = await run(Answer(raw=(choices(200, of=100),)), reads, request=asking(n=100), **given)

    assert many.error["code"] == "upstream_error"
    assert "more choices" in many.error["message"]
    assert asked.outcome == "ok"


async def test_blank_lines_are_no_steps_of_their_own():
    settings = VerifySettings.model_validate({"verifiers": ["python", "arithmetic", "json_schema", "constraints"]})
    result = await run_plugin(VerifyPlugin(settings), "hi", upstream=Answer(pieces=("\n" * 40_000,)), stream=True)

    assert result_of(result.exchange).checks < 40


async def test_nothing_goes_on_for_an_answer_that_nobody_waits_for():
    begun = []

    async def forever(step):
        begun.append(step.index)
        await asyncio.Event().wait()

    never = Does("never", lambda step, _: forever(step), timeout_s=600.0)
    async with workbench(*plugins(never, mode="observe"), upstream="One. " * 500) as bench:
        asked = asyncio.timeout(0.2)
        with pytest.raises(TimeoutError):
            async with asked:
                await bench.run("hi", stream=True)

    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("predawn.")] == []
    assert begun == list(range(8))


async def test_what_is_left_is_read_in_turns_of_its_own(monkeypatch):
    turns, read, tasks = [0], observing.Observing._read_a_little, Tasks()
    monkeypatch.setattr(rounds, "SLICE_S", 0.0)

    def counted(self):
        turns[-1] += 1
        return read(self)

    async def watch():
        while True:
            turns.append(0)
            await asyncio.sleep(0)

    monkeypatch.setattr(observing.Observing, "_read_a_little", counted)
    tasks.spawn(watch(), "watch")
    await run(Answer(pieces=("One. " * 10_000,)), Does("reads", lambda *_: PASS), mode="observe")
    await tasks.cancel()

    assert sum(turns) > 90
    assert max(turns) <= 2  # in the round of all answers, and by whoever waits for this one's end


async def test_a_server_that_stops_waits_for_the_last_verdict():
    busy = []
    last = Does("last", lambda step, _: (step.is_last and busy.append(service.is_busy)) or PASS)
    async with workbench(*plugins(last, mode="observe"), upstream="One. Two.") as bench:
        service = bench._app.generation.service
        await bench.run("hi", stream=True)

        assert busy == [True]
        assert not service.is_busy


async def test_a_sample_is_read_to_its_end_before_it_is_compared():
    told = []

    class Samples(Plugin[PluginSettings]):
        @hookimpl
        async def around_completion(self, exchange, call_next):
            async with SideCall(exchange, call_next) as side:
                await side.whole()
            told.append([verdict.outcome for verdict in side.exchange.verdicts])
            return await call_next(exchange)

    chosen = [Samples(PluginSettings()), *plugins(Does("reads", lambda *_: PASS), mode="observe")]
    await run_plugin(chosen, "hi", upstream="One. " * 400, stream=True)

    assert told == [["pass"] * 401]


@pytest.mark.parametrize("mode", ["observe", "optimistic", "gate", "intervene"])
async def test_an_answer_that_is_over_is_gone_without_the_garbage_collector(mode):
    async with workbench(*plugins(Does("reads", lambda *_: PASS), mode=mode), upstream="One. Two. Three.") as bench:
        await bench.run("hi", stream=True)
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                await bench.http("POST", "/v1/chat/completions", ASKED, headers={"Content-Type": "application/json"})
                await settle()
            kept = [type(one).__name__ for one in gc.get_objects() if issubclass(type(one), MADE)]
        finally:
            gc.enable()

    assert kept == []
