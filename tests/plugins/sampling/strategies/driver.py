"""Drives a strategy by hand: what happens next is the test's choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from predawn.plugins.sampling.strategies import STRATEGIES, Options
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
    Wake,
    Woke,
)
from predawn.proxy.exchange import Verdict
from predawn.proxy.extensions import Extracted


def said(answer: Any, index: int = 0, **members: Any) -> Sample:
    """A whole answer; `None` is one that cannot be compared."""
    extracted = None if answer is None else Extracted(answer, str(answer))
    given = {"text": f"It is {answer}.", "tokens": 10, "finish_reason": "stop", "finished": True, **members}
    return Sample(index, extracted=extracted, **given)


def passed(*outcomes: Any) -> tuple[Verdict, ...]:
    return tuple(Verdict(outcome) for outcome in outcomes)


class Driver:
    """Keeps what a real driver keeps, and asserts that the strategy keeps the rules."""

    def __init__(self, name: str, **options: Any) -> None:
        self.options = Options(**options)
        self.strategy = STRATEGIES[name](self.options)
        self.started = 0
        self.running: list[int] = []
        self.finished: dict[int, Sample] = {}
        self.seeing: list[tuple[int, ...]] = []
        self.cancelled: list[int] = []
        self.asked: tuple[tuple[int, int], ...] | None = None
        self.alarm: float | None = None
        self.stop: Stop | None = None
        self.waves: list[int] = []
        self.is_late = False
        self.tell(Began())

    def tell(self, event: Event) -> None:
        for action in self.strategy.on(event):
            assert self.stop is None, "nothing is asked after the stop"
            self._do(action)

    def _do(self, action: Action) -> None:
        assert not (self.is_late and isinstance(action, (Start, Judge, Wake))), "there is no time for it"
        if isinstance(action, Start):
            assert action.count > 0
            assert all(index in self.finished for index in action.seeing)
            self.running += range(self.started, self.started + action.count)
            self.started += action.count
            self.waves.append(action.count)
            self.seeing.append(action.seeing)
            assert self.started <= self.options.samples
        elif isinstance(action, Cancel):
            assert action.index in self.running
            self.running.remove(action.index)
            self.cancelled.append(action.index)
        elif isinstance(action, Judge):
            assert self.asked is None
            assert action.pairs
            assert all(index in self.finished for pair in action.pairs for index in pair)
            self.asked = action.pairs
        elif isinstance(action, Wake):
            self.alarm = action.after_s
        else:
            assert isinstance(action, Stop)
            assert action.winner is None or action.winner in self.finished or action.winner in self.running
            self.stop = action

    def finish(self, sample: Sample, index: int | None = None) -> None:
        """The first that runs, or this one, ends with this answer."""
        index = self.running[0] if index is None else index
        self.running.remove(index)
        self.finished[index] = replace(sample, index=index)
        self.tell(Finished(self.finished[index]))

    def answer(self, *answers: Any) -> Driver:
        """Samples end with these answers, in order; stops early if the strategy does."""
        for answer in answers:
            if self.stop is None:
                self.finish(answer if isinstance(answer, Sample) else said(answer))
        return self

    def fail(self, index: int | None = None) -> Driver:
        index = self.running[0] if index is None else index
        self.running.remove(index)
        self.tell(Failed(index, "lost"))
        return self

    def grow(self, index: int, **members: Any) -> Driver:
        self.tell(Progress(Sample(index, **members)))
        return self

    def hurry(self) -> Driver:
        self.is_late = True
        self.tell(Hurry())
        return self

    def wake(self) -> Driver:
        self.alarm = None
        self.tell(Woke())
        return self

    def judge(self, better: Callable[[int, int], int | None]) -> Driver:
        assert self.asked is not None
        pairs, self.asked = self.asked, None
        self.tell(Judged(tuple(Judgement(left, right, better(left, right)) for left, right in pairs)))
        return self

    @property
    def answered(self) -> Any:
        """What the winner says."""
        assert self.stop is not None
        if self.stop.winner is None:
            return None
        extracted = self.finished[self.stop.winner].extracted
        return None if extracted is None else extracted.key


def answered(name: str, answers: Sequence[Any], **options: Any) -> Driver:
    """A strategy that gets these answers in this order, and the last one again as long as it asks."""
    driver = Driver(name, **options)
    for count in range(options.get("samples", 8)):
        if driver.stop is None and driver.running:
            driver.answer(answers[min(count, len(answers) - 1)])
    return driver
