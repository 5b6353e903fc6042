"""`optimistic` sends what comes and reads it a little later: nobody is told less, or otherwise, for that."""

import asyncio
from contextlib import suppress
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from tests.plugins.calls.test_taking import DONE, Fed, event
from tests.plugins.verify.test_trace import registered
from tests.plugins.verify.wary import PASS, Does

from predawn.plugins import Chunk, Exchange, Reply, Verdict
from predawn.plugins.testing import settle
from predawn.plugins.verify.continuing import Ways
from predawn.plugins.verify.meters import VerifyMeters
from predawn.plugins.verify.modes.flow import Ask, Flow, Send
from predawn.plugins.verify.modes.rules import Rule, Rules
from predawn.plugins.verify.reading import CONTENT
from predawn.plugins.verify.rounds import Rounds
from predawn.plugins.verify.runner import Runner, RunnerLimits
from predawn.plugins.verify.streaming import Streaming
from predawn.plugins.verify.watching import SLICE, Plan, Tools
from predawn.proxy.joining import listening_to
from predawn.proxy.ledger import Call
from predawn.proxy.metrics import Metrics
from predawn.proxy.tasks import Tasks
from predawn.proxy.wire.sse import split_events

END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
PIECES = st.lists(st.sampled_from(["One", ". ", "Two.", " ", "\n", "x" * 70, "3 + 4"]), max_size=30)


class Stream:
    """One answer of an upstream that is fed by hand, and a client that takes what it can where it comes."""

    def __init__(self, *verifiers):
        self.source = Fed()
        self.sent = []
        self.tasks = Tasks()
        self.rounds = Rounds()
        meters = VerifyMeters(Metrics(CollectorRegistry()), [one.name for one in verifiers])
        runner = Runner(self.tasks, RunnerLimits(), meters)
        self.tools = Tools(self.tasks, runner, meters, Ways(frozenset(), frozenset()), self.rounds)
        self.plan = Plan("optimistic", tuple(map(registered, verifiers)), Rules(), 8192)
        self.exchange = Exchange(b'{"model":"m","stream":true}', model="m", stream=True)
        self.client = None

    async def call(self, exchange):
        call = Call("u", "m", exchange.call_purpose)
        call.status, call.outcome = 200, "ok"
        exchange.ledger.calls.append(call)
        head = {"Content-Type": "text/event-stream"}
        return Reply(200, head, source=self.source, split=split_events)

    async def begin(self, *texts):
        self.client = self.tasks.spawn(self.listen(), "client")
        await settle()
        for text in texts:
            self.source.feed(event(text))
            await settle()

    async def listen(self):
        reply = await Streaming(self.tools, self.plan, self.exchange, self.call).reply()

        def take(chunks):
            self.sent += [chunk.raw for chunk in chunks]
            return True

        listening_to(reply.chunks)(take)
        async for chunk in reply.chunks:
            self.sent.append(chunk.raw)

    @property
    def text(self):
        data = [Chunk(raw).data for raw in self.sent]
        return "".join(one["choices"][0]["delta"].get("content", "") for one in data if one and one["choices"])

    async def end(self):
        self.source.feed(END + DONE, ends=True)
        await self.client
        await self.exchange.close()


async def test_what_comes_is_sent_at_once_and_read_in_the_next_round():
    seen = []
    stream = Stream(Does("reads", lambda step, _: seen.append(step.text) or PASS))
    await stream.begin("One. ", "Two")
    stream.rounds.open = 20
    stream.source.feed(event(". Three. "))
    at_once, read = stream.text, list(seen)
    await stream.end()

    assert at_once == "One. Two. Three. "
    assert read == ["One."]
    assert seen == ["One.", " Two.", " Three.", " "]


async def test_what_was_sent_and_not_read_yet_counts_as_the_answers_once_it_is_stopped():
    judged = asyncio.Event()

    async def judge():
        await judged.wait()
        return Verdict("violation")

    stream = Stream(Does("waits", lambda *_: judge()))
    await stream.begin("One. ", "Two")
    stream.rounds.open = 1000
    for text in (". ", "Three", ". Four"):
        stream.source.feed(event(text))
    judged.set()
    await settle()
    stream.source.feed(event("Five"))
    async with asyncio.timeout(5):
        await stream.client
    await stream.exchange.close()

    assert stream.text == "One. Two. Three. Four"
    assert b'"finish_reason":"content_filter"' in stream.sent[-3]
    assert stream.exchange.ledger.output == 5
    assert stream.exchange.ledger.discarded == 0


async def test_what_comes_behind_the_end_mark_is_read_before_the_answer_ends():
    seen = []
    stream = Stream(Does("reads", lambda step, _: seen.append(step.text) or PASS))
    await stream.begin("One. ", "Two")
    stream.source.feed(DONE)
    stream.rounds.open = 1000
    stream.source.feed(event(". Three. "))
    stream.source.feed(b"", ends=True)
    async with asyncio.timeout(5):
        await stream.client
    await stream.exchange.close()

    assert stream.text == "".join(seen)


async def test_no_more_is_sent_unread_than_is_cut_at_once():
    seen = []
    stream = Stream(Does("reads", lambda step, _: seen.append(step.end) or PASS))
    await stream.begin("One. ")
    stream.rounds.open = 1000
    for _ in range(2 * SLICE // 5):
        stream.source.feed(event("One. "))
    await settle()
    read = max(seen)
    await stream.end()

    assert SLICE <= read < 2 * SLICE
    assert stream.text == "One. " * (2 * SLICE // 5 + 1)


async def test_a_boundary_that_raises_ends_the_answer_with_its_error():
    def breaks(text):
        if "Two" in text:
            raise KeyError("no")
        return 0

    stream = Stream(Does("breaks", lambda *_: PASS, boundary=breaks))
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    await stream.begin("One. ", "Two")
    with pytest.raises(KeyError):
        async with asyncio.timeout(5):
            await stream.client
    await stream.exchange.close()

    assert stream.rounds.open == 0


async def test_rounds_are_longer_while_an_answer_is_open_and_no_longer():
    stream = Stream(Does("reads", lambda *_: PASS))
    await stream.begin("One. ", "Two")
    assert stream.rounds.open == 1
    stream.client.cancel()
    with suppress(asyncio.CancelledError):
        await stream.client
    await stream.exchange.close()
    await stream.tasks.cancel()

    assert stream.rounds.open == 0


def machine():
    flow = Flow([registered(Does("reads", lambda *_: PASS))], "chat", partial(Rule, "optimistic", Rules()))
    flow.added(0, CONTENT, "content", "Begun. ", Chunk(event("Begun. ")))
    return flow


@given(PIECES, st.integers(1, 9))
def test_steps_and_tokens_are_the_same_however_many_chunks_are_read_at_once(texts, size):
    one, other = machine(), machine()
    alone = [
        action.check.cut
        for text in texts
        for action in one.added(0, CONTENT, "content", text, Chunk(event("")))
        if isinstance(action, Ask)
    ]
    batches = [texts[at : at + size] for at in range(0, len(texts), size)]
    together = [action.check.cut for batch in batches for action in other.came(0, CONTENT, batch)]

    assert [(cut.start, cut.end) for cut in together] == [(cut.start, cut.end) for cut in alone]
    for at in range(40):
        assert other._choices[0].keep(lambda _: 40 - at) == one._choices[0].keep(lambda _: 40 - at)


def test_only_a_text_that_has_begun_and_not_ended_goes_on():
    flow = machine()
    assert flow.goes_on(0, CONTENT)
    assert not flow.goes_on(1, CONTENT)
    flow.ended(0)

    assert not flow.goes_on(0, CONTENT)


def holding(mode):
    flow = Flow([registered(Does("reads", lambda *_: PASS))], "chat", partial(Rule, mode, Rules()))
    actions = flow.added(0, CONTENT, "content", "Begun. ", Chunk(event("Begun. ")))
    return flow, actions


def played(flow, actions, verdict):
    """What is sent, all checks having come to this word."""
    sent, waiting = [], list(actions)
    while waiting:
        action = waiting.pop(0)
        if isinstance(action, Ask):
            action.check.verdict = verdict
            waiting += flow.settled(action.check)
        elif isinstance(action, Send):
            sent.append(action.chunk.raw)
    return sent


@pytest.mark.parametrize("mode", ["gate", "intervene", "optimistic"])
@pytest.mark.parametrize("verdict", [PASS, Verdict("unsure")])
@given(texts=PIECES, size=st.integers(1, 9))
def test_what_is_held_and_sent_is_the_same_however_many_chunks_come_at_once(mode, verdict, texts, size):
    (one, first), (other, begun) = holding(mode), holding(mode)
    raws = [event(f"{at}") for at in range(len(texts))]
    alone, together = played(one, first, verdict), played(other, begun, verdict)
    for text, raw in zip(texts, raws, strict=True):
        alone += played(one, one.added(0, CONTENT, "content", text, Chunk(raw)), verdict)
    for at in range(0, len(texts), size):
        batch = texts[at : at + size], raws[at : at + size]
        together += played(other, other.added_run(0, CONTENT, "content", *batch), verdict)

    assert together == alone
    for at in range(40):
        assert other._choices[0].keep(lambda _: 40 - at) == one._choices[0].keep(lambda _: 40 - at)


@pytest.mark.parametrize("mode", ["gate", "intervene"])
async def test_a_held_answer_is_read_in_its_turn_and_leaves_in_few_writes(mode):
    seen = []
    stream = Stream(Does("reads", lambda step, _: seen.append(step.text) or PASS))
    stream.plan = Plan(mode, stream.plan.verifiers, Rules(), 8192)
    await stream.begin("One. ")
    stream.tools.turns.open = 10_000
    for text in ("Two", ". ", "Thr", "ee", ". ", "Fo", "ur", ". ", "x"):
        stream.source.feed(event(text))
    await settle()
    before = list(seen)
    await asyncio.sleep(0.05)
    await settle()
    later = list(seen)
    await stream.end()

    assert before == ["One."]
    assert later == ["One.", " Two.", " Three.", " Four."]
    assert stream.text == "One. Two. Three. Four. x"
    assert stream.tools.turns.open == 9_999
