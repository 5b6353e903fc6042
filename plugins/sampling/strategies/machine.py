"""What all strategies do the same way: take events in, keep the pool, end when there is nothing left to wait for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from predawn.plugins.sampling.strategies.pool import Pool
from predawn.plugins.sampling.strategies.protocol import (
    Action,
    Began,
    Event,
    Failed,
    Finished,
    Hurry,
    Judged,
    Options,
    Progress,
    Sample,
    Stop,
    Woke,
)


class Machine(ABC):
    """One request's strategy. A kind of strategy says how to begin and what to do when a sample has ended."""

    name: str
    progress_every: int = 0

    def __init__(self, options: Options) -> None:
        self.options = options
        self.pool = Pool(options.samples)
        self.stopped: Stop | None = None
        self.is_late = False
        """True once the time is up."""

    def on(self, event: Event) -> Sequence[Action]:
        """What is to be done now; nothing once it has stopped."""
        if self.stopped is not None:
            return ()
        actions: list[Action] = []
        for action in self._react(event):
            actions.append(action)
            if isinstance(action, Stop):
                self.stopped = action
                break
        return actions

    def _react(self, event: Event) -> Iterator[Action]:
        if isinstance(event, Began):
            yield from self.begin()
        elif isinstance(event, Finished):
            if self.pool.ended(event.sample):
                if self.is_late:
                    yield self.late()
                else:
                    yield from self.next()
        elif isinstance(event, Failed):
            if self.pool.lost(event.index):
                yield from self._lost()
        elif isinstance(event, Progress):
            if event.sample.index in self.pool.running:
                yield from self.grew(event.sample)
        elif isinstance(event, Judged):
            yield from self.judged(event)
        elif isinstance(event, Woke):
            if not self.is_late:
                yield from self.woke()
        elif isinstance(event, Hurry):
            self.is_late = True
            self.pool.close()
            if self.pool.finished:
                yield self.late()

    def _lost(self) -> Iterator[Action]:
        """A wave of which nothing came back is the upstream's refusal: it is not asked again and again."""
        if self.pool.is_idle and not self.pool.finished:
            yield Stop(None, "failed")
        else:
            yield from self.next()

    @abstractmethod
    def begin(self) -> Iterator[Action]:
        """The first actions."""

    @abstractmethod
    def next(self) -> Iterator[Action]:
        """A sample has ended, one way or the other; at least one has finished or still runs."""

    def grew(self, _sample: Sample) -> Iterator[Action]:
        """A running sample has grown."""
        return iter(())

    def judged(self, _event: Judged) -> Iterator[Action]:
        """A judge has spoken."""
        return iter(())

    def late(self) -> Stop:
        """The answer where the time is up; something has finished."""
        return Stop(self.pool.finished[0].index, "late")

    def woke(self) -> Iterator[Action]:
        """The time that was asked for has passed."""
        return iter(())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.stopped or self.pool}>"
