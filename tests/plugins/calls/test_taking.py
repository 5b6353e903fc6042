"""Events that are offered where they are read: over a source that is fed by hand, as a connection feeds its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predawn.plugins import CallNext, Chunk, Exchange, Reply
from predawn.plugins.calls import SideCall
from predawn.plugins.calls.heard import Heard
from predawn.plugins.calls.plain import Said, said_plainly
from predawn.plugins.calls.taking import Untaken
from predawn.plugins.testing import settle
from predawn.plugins.verify.reading import part_said, parts_of
from predawn.proxy.tasks import Tasks
from predawn.proxy.upstreams.base import UpstreamError
from predawn.proxy.wire.sse import split_events

DONE = b"data: [DONE]\n\n"


def event(text: str) -> bytes:
    return b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % text.encode()


class Fed:
    """A `TappedSource`."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.idle_s = 60.0
        self.error: Exception | None = None
        self.ends = False
        self.closed = 0
        self.callback: Callable[[], None] | None = None

    @property
    def at_end(self) -> bool:
        return self.ends and not self.pieces

    @property
    def is_complete(self) -> bool:
        return self.ends

    def read_nowait(self) -> bytes:
        read, self.pieces = b"".join(self.pieces), []
        return read

    def listen(self, callback: Callable[[], None] | None) -> None:
        self.callback = callback

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece

    async def aclose(self) -> None:
        self.closed += 1

    def feed(self, data: bytes, *, ends: bool = False) -> None:
        if data:
            self.pieces.append(data)
        self.ends = self.ends or ends
        if self.callback is not None:
            self.callback()


async def heard_of(source: Fed, take: Callable[[Chunk, Any], bool]) -> tuple[SideCall, list[bytes], asyncio.Task[None]]:
    """A call of which a task hears what was not taken."""

    async def call(exchange: Exchange) -> Reply:
        exchange.end_with(source.aclose)
        return Reply(200, {"Content-Type": "text/event-stream"}, source=source, split=split_events)

    calls: CallNext = call
    side, untaken = SideCall(Exchange(b'{"model":"m"}'), calls, keep=False), list[bytes]()

    async def listen() -> None:
        async with side:
            async for chunk in side.listen(take):
                untaken.append(chunk.raw)

    task = Tasks().spawn(listen(), "listen")
    await settle()
    return side, untaken, task


async def test_what_is_taken_is_taken_before_the_read_returns_and_wakes_nobody() -> None:
    source, taken = Fed(), list[str]()

    def take(chunk: Chunk, said: Any) -> bool:
        del chunk
        taken.append(said.text if said is not None else "?")
        return True

    side, untaken, task = await heard_of(source, take)
    source.feed(event("one") + event("two")[:20])
    assert taken == ["one"]
    source.feed(event("two")[20:] + DONE, ends=True)
    assert taken == ["one", "two", "?"]
    await task

    assert (untaken, side.is_whole, side.heard.text, side.heard.output_tokens) == ([], True, "onetwo", 2)
    assert (source.callback, source.closed) == (None, 1)


async def test_nothing_behind_a_chunk_that_is_not_taken_is_offered_before_it_was_looked_at() -> None:
    source, offered = Fed(), list[str]()

    def take(chunk: Chunk, said: Any) -> bool:
        del chunk
        offered.append(said.text if said is not None else "done")
        return offered[-1] != "two"

    _, untaken, task = await heard_of(source, take)
    source.feed(event("one") + event("two") + event("three"))
    source.feed(event("four"))
    before = list(offered)
    source.feed(DONE, ends=True)
    await task

    assert before == ["one", "two"]
    assert offered == ["one", "two", "three", "four", "done"]
    assert untaken == [event("two")]


async def test_what_taking_raises_comes_to_the_task_that_listens() -> None:
    def take(chunk: Chunk, said: Any) -> bool:
        raise ValueError("no answer")

    source = Fed()
    _, _, task = await heard_of(source, take)
    source.feed(event("one"))
    with pytest.raises(ValueError, match="no answer"):
        await task

    assert (source.callback, source.closed) == (None, 1)


async def test_a_connection_that_is_lost_ends_the_call_after_what_came() -> None:
    source = Fed()
    side, _, task = await heard_of(source, lambda *_: True)
    source.feed(event("one"))
    source.error = UpstreamError("up", "truncated", "the answer was cut off", sent_nothing=False)
    source.feed(b"")
    with pytest.raises(UpstreamError, match="cut off"):
        await task

    assert (side.heard.text, side.is_whole, side.failure is source.error) == ("one", False, True)


async def test_a_connection_that_is_lost_while_nobody_waits_is_found_lost() -> None:
    source, busy = Fed(), asyncio.Event()
    untaken = Untaken(source, lambda raw: Chunk(raw) if b"one" in raw else None, "up")

    async def listen() -> None:
        async for _ in untaken:
            await busy.wait()

    task = Tasks().spawn(listen(), "listen")
    await settle()
    source.feed(event("one") + event("two"))
    await settle()
    source.error = UpstreamError("up", "truncated", "the answer was cut off", sent_nothing=False)
    source.feed(b"")
    busy.set()

    async with asyncio.timeout(1):
        with pytest.raises(UpstreamError, match="cut off"):
            await task


async def test_a_stream_without_its_end_mark_is_no_whole_answer() -> None:
    source = Fed()
    _, _, task = await heard_of(source, lambda *_: True)
    source.feed(event("one").rstrip(b"\n"), ends=True)

    with pytest.raises(UpstreamError, match="end mark"):
        await task


async def test_a_stream_that_goes_quiet_is_given_up() -> None:
    source = Fed()
    source.idle_s = 0.001
    _, _, task = await heard_of(source, lambda *_: True)

    with pytest.raises(UpstreamError, match="nothing came"):
        await task


async def test_cancelling_offers_no_more() -> None:
    source, taken = Fed(), list[bytes]()

    def take(chunk: Chunk, said: Any) -> bool:
        del said
        taken.append(chunk.raw)
        return True

    side, _, task = await heard_of(source, take)
    source.feed(event("one"))
    await side.cancel()
    source.feed(event("two"))
    await task

    assert (taken, source.closed) == ([event("one")], 1)


async def test_a_flood_gives_others_their_turn() -> None:
    source, turns = Fed(*[event("x")] * 20_000), 0
    source.ends = True
    untaken = Untaken(source, lambda _: None, "up")

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def listen() -> list[Chunk]:
        return [chunk async for chunk in untaken]

    tasks = Tasks()
    counting = tasks.spawn(count(), "count")
    assert await tasks.spawn(listen(), "listen") == []
    counting.cancel()

    assert turns > 2


members: st.SearchStrategy[str] = st.sampled_from(
    ["content", "reasoning_content", "reasoning", "refusal", "role", "tool_calls", "made_up"]
)
values: st.SearchStrategy[Any] = (
    st.none() | st.text(max_size=3) | st.just([{"index": 0, "function": {"arguments": "{"}}]) | st.just(1)
)
choices: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "index": st.none() | st.booleans() | st.integers(-1, 2) | st.just(1.0),
        "delta": st.none() | st.dictionaries(members, values, max_size=3),
        "text": values,
        "finish_reason": st.none() | st.just("stop"),
        "logprobs": st.none() | st.just({"content": []}),
        "made_up": values,
    },
)
chunks = st.fixed_dictionaries(
    {"id": st.just("x")},
    optional={
        "choices": st.lists(choices, max_size=2),
        "usage": st.none() | st.just({"prompt_tokens": 1, "completion_tokens": 2}),
        "error": st.none() | st.just({"message": "no"}),
    },
)


@settings(max_examples=500)
@given(chunks)
def test_a_plain_chunk_says_what_reading_all_of_it_says(data: dict[str, Any]) -> None:
    raw = b"data: " + msgspec.json.encode(data) + b"\n\n"
    said = said_plainly(raw)
    if said is None:
        return
    fully, plainly = Heard(), Heard()
    fully.saw(Chunk(raw))
    plainly.saw_plainly(said)
    route: Any = "completions" if said.member == "text" else "chat"
    (part,) = parts_of(Chunk(raw), route)
    chunk = part.chunk

    assert part_said(said, chunk) == part
    assert [(one.index, one.text, one.reasoning, one.tokens) for one in plainly.choices.values()] == [
        (one.index, one.text, one.reasoning, one.tokens) for one in fully.choices.values()
    ]
    assert (plainly.usage, plainly.error, plainly.chunks) == (fully.usage, fully.error, 1)


def test_nearly_all_chunks_are_plain() -> None:
    common = b'data: {"id":"x","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"a"},"logprobs":null,"finish_reason":null}],"usage":null}\n\n'

    assert said_plainly(common) == Said(0, "content", "a")
    assert said_plainly(event("b")) == Said(0, "content", "b")


class ByHand:
    """Turns that come when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[Untaken] = []

    def add(self, answer: Untaken) -> None:
        self.waiting.append(answer)

    def come(self) -> None:
        waiting, self.waiting = self.waiting, []
        for answer in waiting:
            assert not answer.read()


class Runs:
    """Takes plain chunks together, up to a text that it does not want."""

    def __init__(self) -> None:
        self.runs: list[list[str]] = []

    def takes(self, first: Said) -> bool:
        return first.text != "alone"

    def taken(self, first: Said, texts: list[str], raws: list[bytes]) -> None:
        assert texts[0] == first.text
        assert [said_plainly(raw) for raw in raws] == [Said(first.choice, first.member, text) for text in texts]
        self.runs.append(texts)


async def turned(
    source: Fed, turns: ByHand, runs: Runs | None = None
) -> tuple[SideCall, list[str], asyncio.Task[None]]:
    """A call whose chunks are taken in turns: all of them, and noted."""

    async def call(exchange: Exchange) -> Reply:
        exchange.end_with(source.aclose)
        return Reply(200, {"Content-Type": "text/event-stream"}, source=source, split=split_events)

    calls: CallNext = call
    side, taken = SideCall(Exchange(b'{"model":"m"}'), calls, keep=True), list[str]()

    def take(chunk: Chunk, said: Said | None) -> bool:
        del chunk
        taken.append(said.text if said is not None else "?")
        return True

    async def listen() -> None:
        async with side:
            async for _ in side.listen(take, turns, runs):
                raise AssertionError("everything was taken")

    task = Tasks().spawn(listen(), "listen")
    await settle()
    return side, taken, task


async def test_what_comes_waits_for_its_turn_and_then_all_of_it_is_read() -> None:
    source, turns = Fed(), ByHand()
    _, taken, task = await turned(source, turns)
    source.feed(event("one"))
    source.feed(event("two"))
    before, waiting = list(taken), len(turns.waiting)
    turns.come()
    read = list(taken)
    source.feed(DONE, ends=True)
    await task

    assert (before, waiting, read, taken) == ([], 1, ["one", "two"], ["one", "two", "?"])


@pytest.mark.parametrize("is_lost", [True, False])
async def test_the_end_waits_for_no_turn(is_lost: bool) -> None:
    source, turns = Fed(), ByHand()
    _, taken, task = await turned(source, turns)
    source.feed(event("one"))
    if is_lost:
        source.error = UpstreamError("up", "truncated", "the answer was cut off", sent_nothing=False)
        source.feed(b"")
        with pytest.raises(UpstreamError, match="cut off"):
            await task
    else:
        source.feed(DONE, ends=True)
        await task
    turns.come()

    assert taken[:1] == ["one"]


async def test_a_turn_after_the_end_reads_nothing() -> None:
    source, turns = Fed(), ByHand()
    side, taken, task = await turned(source, turns)
    source.feed(event("one"))
    await side.cancel()
    await task
    turns.come()

    assert taken == []


@given(
    st.lists(st.sampled_from(["a", "bc", "alone", "x" * 300, "y" * 600]), min_size=1, max_size=12), st.integers(1, 5)
)
def test_what_is_taken_together_is_what_is_taken_alone(texts: list[str], size: int) -> None:
    async def heard() -> tuple[Heard, list[str], list[list[str]], int]:
        source, turns, runs = Fed(), ByHand(), Runs()
        source.idle_s = 5.0
        side, taken, task = await turned(source, turns, runs)
        for at in range(0, len(texts), size):
            source.feed(b"".join(map(event, texts[at : at + size])))
            while turns.waiting:
                turns.come()
                await settle()
        source.feed(DONE, ends=True)
        await task
        return side.heard, taken, runs.runs, len(side.chunks)

    found, taken, runs, kept = asyncio.run(heard())

    assert found.text == "".join(texts)
    assert (found.choices[0].tokens, found.chunks, kept) == (len(texts), len(texts), len(texts) + 1)
    assert sorted([*taken, *(text for run in runs for text in run)]) == sorted([*texts, "?"])
    assert all(len("".join(run)) <= 512 for run in runs)
    assert all("alone" != run[0] for run in runs)
