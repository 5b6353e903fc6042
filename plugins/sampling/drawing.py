"""Draws the samples of one request: does what a strategy asks for, and tells it what came of that.

Each call is a task of its own; what they have to tell goes through one queue, so that a strategy sees one event after
another. Whatever happens, no call outlives its request: the winner's is heard to its end, every other one is cancelled
upstream the moment a strategy stops, and all of them when the client leaves.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from time import perf_counter
from typing import TYPE_CHECKING, Final

from predawn.plugins import RequestError
from predawn.plugins.calls import Refused, SideCall
from predawn.plugins.sampling.judging import verdict_of
from predawn.plugins.sampling.strategies.protocol import (
    Action,
    Began,
    Cancel,
    Event,
    Failed,
    Finished,
    Hurry,
    Judge,
    Judged,
    Judgement,
    Progress,
    Sample,
    Start,
    Stop,
    Strategy,
    Wake,
    Woke,
)
from predawn.plugins.sampling.voices import Draw, Voice
from predawn.proxy.dispatch import HookError
from predawn.proxy.upstreams.base import UpstreamError
from predawn.proxy.wire.sse import EventTooLargeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from predawn.plugins import App, CallNext, Chunk, Exchange, RegisteredVerifier, Verdict
    from predawn.plugins.calls.plain import Said
    from predawn.plugins.sampling.answers import Reader
    from predawn.plugins.sampling.control import Plan
    from predawn.plugins.sampling.judging import Judging
    from predawn.plugins.sampling.settings import SamplingSettings

STARTED_IN_A_ROW: Final = 4
"""Calls that begin before others get a turn: one takes some 300 µs of the event loop, and 64 would be felt."""
READ_AT_ONCE: Final = 16_000
"""Characters of an answer that are read on the event loop, which takes about a millisecond; longer ones in a thread."""
LARGEST_SAMPLE: Final = 32 << 20
"""Bytes of one call's answer."""
LARGEST_DRAWING: Final = 256 << 20
"""Bytes of all answers to one request, which are kept until one of them is chosen."""


@dataclass(frozen=True, slots=True)
class Means:
    """What samples of one request are drawn with."""

    app: App
    settings: SamplingSettings
    strategy: Strategy
    read: Reader
    """Finds what a text answers."""
    verifier: RegisteredVerifier | None
    changes: Callable[[Draw, list[Sample]], Mapping[str, Any] | None]
    """The members of a call that differ from the client's; `None` where it cannot be asked so."""
    shares_prefill: bool
    began: Callable[[float], None]
    """Told how long each first chunk took."""
    judging: Judging


class Drawing:
    """The samples of one request."""

    def __init__(self, exchange: Exchange, call_next: CallNext, plan: Plan, means: Means) -> None:
        self.exchange = exchange
        self.plan = plan
        self.voices: list[Voice] = []
        self.draws: list[Draw] = []
        self.stop: Stop | None = None
        self.failures: list[BaseException] = []
        """Why samples failed, in the order in which they did."""
        self._call_next = call_next
        self.means = means
        self._tasks = means.app.tasks
        self._inbox: deque[Event] = deque()
        self._news: asyncio.Future[None] | None = None
        self._waiting: deque[Draw] = deque()
        self._running = 0
        self._others: set[asyncio.Task[None]] = set()
        """Timers and comparisons."""
        self._timer: asyncio.Task[None] | None = None
        self._judges = 0
        self._bytes = 0
        """Of all answers that are kept."""
        self._is_poor = False
        """True once samples could not be paid; then no more are tried."""

    # -- the strategy

    async def decide(self) -> Stop:
        """Draw until the strategy has an answer. Raises `RequestError` 429 where the first samples cannot be paid."""
        if (deadline := self.exchange.deadline) is not None:
            self._spawn(self._after(max(deadline - perf_counter(), 0.0), Hurry()), "deadline")
        await self._do(self.means.strategy.on(Began()))
        while self.stop is None:
            if self._inbox:
                await self._do(self.means.strategy.on(self._inbox.popleft()))
            elif self._expects_something:
                self._news = asyncio.get_running_loop().create_future()
                await self._news
                self._news = None
            else:  # a strategy that forgot to stop
                self._end_by_itself("exhausted")
        self._quieten()
        assert self.stop is not None
        return self.stop

    @property
    def _expects_something(self) -> bool:
        return bool(self._running or self._waiting or self._judges or (self._timer and not self._timer.done()))

    def _end_by_itself(self, why: str) -> None:
        """The first complete sample, where the strategy does not say which."""
        ended = [voice for voice in self.voices if voice.state == "finished"]
        ended.sort(key=lambda voice: not (voice.sample is not None and voice.sample.complete))
        self.stop = Stop(ended[0].index, why) if ended else Stop(None, "failed")

    async def _do(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if self.stop is not None:
                return
            if isinstance(action, Start):
                await self._start(action)
            elif isinstance(action, Cancel):
                self._cancel(action.index)
            elif isinstance(action, Judge):
                self._judges += 1
                self._spawn(self._judge(action), "judging")
            elif isinstance(action, Wake):
                self._wake(action.after_s)
            else:
                self._stop(action)

    def _stop(self, stop: Stop) -> None:
        winner = stop.winner
        is_known = winner is not None and 0 <= winner < len(self.voices)
        if winner is None or (is_known and self.voices[winner].state in {"running", "finished"}):
            self.stop = stop
        else:  # it failed before the strategy heard of it
            self._end_by_itself(stop.why)

    def _put(self, event: Event) -> None:
        self._inbox.append(event)
        self._wake_up()

    def _wake_up(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    # -- samples

    async def _start(self, action: Start) -> None:
        count = min(action.count, self.plan.samples - len(self.voices))
        if count <= 0:
            return
        affordable = await self._affordable(count)
        voices = [Voice(len(self.voices) + place) for place in range(count)]
        self.voices += voices
        for draw in self._draws_for(voices[:affordable], action.seeing):
            self.draws.append(draw)
            self._waiting.append(draw)
        for voice in voices[affordable:]:
            voice.state = "failed"
            self._put(Failed(voice.index, "unaffordable"))
        await self._begin_waiting()

    async def _affordable(self, count: int) -> int:
        """How many of so many samples can be paid; the very first was admitted with the request itself.

        A client that asks for samples is refused where waiting would make room for them. A ceiling for the request
        itself says nothing of waiting: under it, it gets as many as there is room for.
        """
        admitted = 0 if self.voices else 1
        more = 0 if self._is_poor else count - admitted
        refusal: RequestError | None = None
        while more > 0:
            try:
                await self.exchange.reserve(more)
                break
            except RequestError as exc:
                if admitted and self.plan.asked and "retry-after" in exc.headers:
                    raise
                refusal, more = exc, more // 2
        if refusal is not None:
            self._is_poor = True
            self.exchange.decide("sampling", "unaffordable", samples=count - admitted - more, why=refusal.message)
        return admitted + more

    def _draws_for(self, voices: list[Voice], seeing: tuple[int, ...]) -> Iterable[Draw]:
        if self.means.shares_prefill and len(voices) > 1:
            for place, voice in enumerate(voices):
                voice.choice = place
            yield Draw(tuple(voices), seeing)
        else:
            for voice in voices:
                yield Draw((voice,), seeing)

    async def _begin_waiting(self) -> None:
        """Begin as many calls as may run side by side."""
        in_a_row = 0
        while self.stop is None and self._begin_next():
            in_a_row += 1
            if in_a_row % STARTED_IN_A_ROW == 0:
                await asyncio.sleep(0)

    def _begin_next(self) -> bool:
        """Begin the call that waits longest; False if none does, or too many run."""
        while self._waiting and self._running < self.means.settings.at_once:
            draw = self._waiting.popleft()
            if draw.is_wanted:
                self._begin(draw)
                return True
        return False

    def _begin(self, draw: Draw) -> None:
        self._running += 1
        for voice in draw.voices:
            if voice.state == "waiting":
                voice.state = "running"
        draw.started_s = perf_counter()
        draw.task = self._tasks.spawn(self._draw(draw), f"sampling.{draw.voices[0].index}")
        draw.task.add_done_callback(lambda task: self._over(draw, task))

    async def _draw(self, draw: Draw) -> None:
        """Hear one call to its end."""
        seen = [sample for index in draw.seeing if (sample := self.voices[index].sample) is not None]
        changes = self.means.changes(draw, seen)
        if changes is None:
            return self._lost(draw, RequestError(400, "It cannot be asked again with the earlier answers in view."))
        try:
            async with SideCall(self.exchange, self._call_next, changes=changes) as side:
                draw.side = side
                await self._listen(draw, side)
                if not side.stopped:
                    await self._ended(draw)
        except (Refused, RequestError, UpstreamError, HookError, EventTooLargeError) as exc:
            self._lost(draw, exc)

    async def _listen(self, draw: Draw, side: SideCall) -> None:
        async for _chunk in side.listen(partial(self._took, draw)):
            if self._is_too_large(draw):
                message = f"the answers are too large to be kept: {self._bytes >> 20} MiB"
                self._forget_unheard(draw)  # at once: the others have room again, or they would be given up as well
                raise UpstreamError(side.exchange.upstream, "protocol", message, sent_nothing=False)
            await self._ended_choices(draw)

    def _took(self, draw: Draw, chunk: Chunk, said: Said | None) -> bool:
        """Take in a chunk where it is read; False for one of which more must be done than that."""
        draw.count += 1
        draw.growth.grew()
        size = len(chunk.raw)
        draw.size += size
        self._bytes += size
        if draw.count == 1:
            draw.has_begun = True
            self.means.began(perf_counter() - draw.started_s)
        every = self.means.strategy.progress_every
        if every and draw.count % every == 0 and self.stop is None:
            for voice in draw.voices:
                if voice.state == "running":
                    self._put(Progress(voice.so_far()))
        return not self._is_too_large(draw) and (said is not None or len(draw.voices) == 1)

    def _is_too_large(self, draw: Draw) -> bool:
        return draw.size > LARGEST_SAMPLE or self._bytes > LARGEST_DRAWING

    async def _ended_choices(self, draw: Draw) -> None:
        """Choices of a call end one by one."""
        for voice in draw.voices:
            if voice.state == "running" and (heard := voice.heard) is not None and heard.finish_reason is not None:
                await self._finish(voice)
        if not draw.is_wanted and draw.side is not None and any(voice.state == "cancelled" for voice in draw.voices):
            await draw.side.cancel()  # what is left of it was given up before

    async def _ended(self, draw: Draw) -> None:
        for voice in draw.voices:
            if voice.state == "running":
                await self._finish(voice)

    async def _finish(self, voice: Voice) -> None:
        said, read = voice.said, self.means.read
        is_short = len(said.text) <= READ_AT_ONCE
        extracted = read(said.text, said.calls) if is_short else await asyncio.to_thread(read, said.text, said.calls)
        sample = voice.finished(said, extracted, await self._verdicts(voice, said.text))
        if voice.state == "running":  # it may have been given up while it was checked
            voice.state = "finished"
            self._put(Finished(sample))

    async def _verdicts(self, voice: Voice, text: str) -> tuple[Verdict, ...]:
        """What the plugins further in said of it, and what its strategy wants to know."""
        side, verifier = voice.draw.side, self.means.verifier
        assert side is not None
        verdicts = side.exchange.verdicts
        if verifier is not None and self.stop is None:
            verdict = await verdict_of(verifier, text, side.exchange, self.means.app)
            verdicts.append(replace(verdict, choice=voice.choice))
        return tuple(verdict for verdict in verdicts if verdict.choice == voice.choice)

    def _lost(self, draw: Draw, error: BaseException) -> None:
        self.failures.append(error)
        is_of_use = any(voice.state == "finished" for voice in draw.voices)  # that choice has come to its end
        draw.growth.end(None if is_of_use else error)
        for voice in draw.voices:
            if voice.state in {"waiting", "running"}:
                voice.state = "failed"
                self._put(Failed(voice.index, type(error).__name__))

    def _over(self, draw: Draw, task: asyncio.Task[None]) -> None:
        """A call has ended in any way."""
        self._running -= 1
        if not task.cancelled() and (crash := task.exception()) is not None:
            self._lost(draw, crash)
        if task.cancelled() and not draw.has_begun:
            self.means.began(perf_counter() - draw.started_s)  # it took at least so long
        if draw.is_wanted and draw.side is not None and draw.side.stopped == "deadline":
            self._put(Hurry())  # before a strategy hears of a failure, for which it might draw another
            message = "The request took longer than it may."
            self._lost(draw, RequestError(504, message, type="server_error", code="upstream_timeout"))
        for voice in draw.voices:
            if voice.state == "running":
                voice.state = "cancelled"
        draw.growth.end()
        self._forget_unheard(draw)
        if self.stop is None and not self.exchange.is_closed:
            self._begin_next()
        self._wake_up()

    def _forget_unheard(self, draw: Draw) -> None:
        if not any(voice.state == "finished" for voice in draw.voices) and self.winner not in draw.voices:
            self._forget(draw)

    def _forget(self, draw: Draw) -> None:
        """Let go of what an answer said that nobody will hear."""
        self._bytes -= draw.size
        draw.size = 0
        if draw.side is not None:
            draw.side.chunks.clear()

    def _cancel(self, index: int) -> None:
        if not 0 <= index < len(self.voices):
            return
        voice = self.voices[index]
        if voice.state in {"waiting", "running"}:
            voice.state = "cancelled"
            if not voice.draw.is_wanted and voice.draw.task is not None:
                voice.draw.task.cancel()

    # -- the end

    @property
    def drawn(self) -> int:
        """Samples that were asked for; those that could not be paid were not."""
        return sum(len(draw.voices) for draw in self.draws)

    @property
    def compared(self) -> int:
        """Answers that could be compared."""
        samples = [voice.sample for voice in self.voices if voice.sample is not None]
        return sum(sample.complete and sample.extracted is not None for sample in samples)

    @property
    def winner(self) -> Voice | None:
        index = self.stop.winner if self.stop is not None else None
        return self.voices[index] if index is not None else None

    def _quieten(self) -> None:
        """Give up everything but the winner."""
        self._waiting.clear()
        winner = self.winner
        for voice in self.voices:
            if voice is not winner:
                self._cancel(voice.index)
        for task in tuple(self._others):
            task.cancel()
        for draw in self.draws:
            if winner is None or draw is not winner.draw:
                self._forget(draw)

    async def quiet(self) -> None:
        """Wait until every call but a winner's that still runs has been closed and booked."""
        winner = self.winner
        running = winner.draw.task if winner is not None and winner.state == "running" else None
        tasks = [draw.task for draw in self.draws if draw.task is not None and draw.task is not running]
        tasks = [task for task in (*tasks, *self._others) if not task.done()]
        if tasks:
            await asyncio.wait(tasks)

    async def aclose(self) -> None:
        """Give up everything; safe at any time."""
        self._waiting.clear()
        for voice in self.voices:
            if voice.state == "waiting":
                voice.state = "cancelled"
        tasks = [draw.task for draw in self.draws if draw.task is not None]
        tasks = [task for task in (*tasks, *self._others) if not task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # -- judges and timers

    async def _judge(self, action: Judge) -> None:
        known = {voice.index: voice.sample for voice in self.voices if voice.state == "finished" and voice.sample}
        pairs = [(known[left], known[right]) for left, right in action.pairs if left in known and right in known]
        compared: dict[tuple[int, int], Judgement] = {}
        try:
            for judgement in await self.means.judging.compare(pairs):
                compared[judgement.left, judgement.right] = judgement
        except RequestError as exc:
            self.exchange.decide("sampling", "unaffordable", comparisons=len(pairs), why=exc.message)
        finally:
            self._judges -= 1
        self._put(Judged(tuple(compared.get(pair, Judgement(*pair, None)) for pair in action.pairs)))

    def _wake(self, after_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._spawn(self._after(after_s, Woke()), "timer") if isfinite(after_s) else None

    async def _after(self, seconds: float, event: Event) -> None:
        await self.means.app.clock.sleep(seconds)
        self._put(event)

    def _spawn(self, coro: Any, name: str) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self._tasks.spawn(coro, f"sampling.{name}")
        self._others.add(task)
        task.add_done_callback(self._other_over)
        return task

    def _other_over(self, task: asyncio.Task[None]) -> None:
        self._others.discard(task)
        self._wake_up()
