"""One strategy, one recorded problem: events in the order of their times, actions done as the proxy does them."""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING

from predawn.plugins.sampling.strategies.protocol import (
    Began,
    Cancel,
    Event,
    Failed,
    Finished,
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

if TYPE_CHECKING:
    from predawn.plugins.sampling.simulation.recording import Drawn
    from predawn.plugins.sampling.strategies.protocol import Action, Strategy


@dataclass(frozen=True, slots=True)
class JudgeRules:
    """A judge to play with: how often it prefers the right one of a right and a wrong answer; `None` for never
    knowing."""

    accuracy: float | None = None
    tokens: int = 32
    """Of one comparison in one order; each pair takes two."""
    seconds: float = 0.5


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it."""

    correct: bool
    tokens: int
    """Output tokens of everything, cancelled samples up to where they were and judgements included."""
    samples: int
    seconds: float
    """Until the answer was whole."""
    why: str
    agreement: float | None
    confidence: float | None


class StuckError(Exception):
    """A strategy that neither ends nor waits for anything."""


class Play:
    """Plays a strategy over answers that were drawn before, in the order given."""

    def __init__(
        self, strategy: Strategy, drawn: Sequence[Drawn], *, at_once: int, judge: JudgeRules, chance: random.Random
    ) -> None:
        self._strategy = strategy
        self._drawn = drawn
        self._at_once = max(1, at_once)
        self._judge = judge
        self._chance = chance
        self._now = 0.0
        self._queue: list[tuple[float, int, Callable[[], Event | None]]] = []
        self._order = count()
        self._waiting: deque[int] = deque()
        self._began: dict[int, float] = {}
        self._spent: dict[int, int] = {}
        self._started = 0
        self._judged_tokens = 0
        self._alarm = 0

    def run(self) -> Outcome:
        """Play to the end. Raises `StuckError` for a strategy that has none."""
        stop = self._tell(Began())
        while stop is None:
            while len(self._running) < self._at_once and self._waiting:
                self._begin(self._waiting.popleft())
            if not self._queue:
                raise StuckError(f"{self._strategy!r} waits for nothing")
            self._now, _, happen = heapq.heappop(self._queue)
            event = happen()
            if event is not None:
                stop = self._tell(event)
        return self._outcome(stop)

    @property
    def _running(self) -> set[int]:
        return self._began.keys() - self._spent.keys()

    def _tell(self, event: Event) -> Stop | None:
        for action in self._strategy.on(event):
            if isinstance(action, Stop):
                return action
            self._do(action)
        return None

    def _do(self, action: Action) -> None:
        if isinstance(action, Start):
            self._waiting.extend(range(self._started, self._started + action.count))
            self._started += action.count
        elif isinstance(action, Cancel):
            self._cancel(action.index)
        elif isinstance(action, Judge):
            self._judged_tokens += 2 * len(action.pairs) * self._judge.tokens
            self._at(self._judge.seconds, lambda: self._judgement(action))
        elif isinstance(action, Wake):
            self._alarm += 1
            alarm = self._alarm
            self._at(action.after_s, lambda: Woke() if alarm == self._alarm else None)

    def _at(self, after_s: float, happen: Callable[[], Event | None]) -> None:
        heapq.heappush(self._queue, (self._now + after_s, next(self._order), happen))

    def _begin(self, index: int) -> None:
        if index >= len(self._drawn):
            self._spent[index] = 0
            self._at(0, lambda: Failed(index, "nothing more was recorded"))
            return
        self._began[index] = self._now
        self._at(self._drawn[index].seconds, lambda: self._finish(index))
        if self._strategy.progress_every:
            self._at(self._drawn[index].first_token_s, lambda: self._progress(index))

    def _finish(self, index: int) -> Event | None:
        if index in self._spent:
            return None
        self._spent[index] = self._drawn[index].sample.tokens
        return Finished(replace(self._drawn[index].sample, index=index))

    def _progress(self, index: int) -> Event | None:
        """What is known of a running sample; a recording knows its least sure stretch only as a whole: it is taken to
        have come by the middle."""
        if index in self._spent:
            return None
        whole = self._drawn[index]
        tokens = self._tokens_by_now(index)
        pace = whole.seconds / max(1, whole.sample.tokens)
        if pace > 0 and tokens < whole.sample.tokens:
            self._at(pace * self._strategy.progress_every, lambda: self._progress(index))
        worst = whole.sample.worst_logprob if 2 * tokens >= whole.sample.tokens else None
        return Progress(Sample(index, tokens=tokens, worst_logprob=worst))

    def _tokens_by_now(self, index: int) -> int:
        whole = self._drawn[index]
        share = (self._now - self._began[index]) / whole.seconds if whole.seconds > 0 else 1.0
        return min(whole.sample.tokens, math.ceil(whole.sample.tokens * share))

    def _cancel(self, index: int) -> None:
        if index in self._waiting:
            self._waiting.remove(index)
        elif index in self._running:
            self._spent[index] = self._tokens_by_now(index)

    def _judgement(self, asked: Judge) -> Event:
        return Judged(tuple(Judgement(left, right, self._better(left, right)) for left, right in asked.pairs))

    def _better(self, left: int, right: int) -> int | None:
        if self._judge.accuracy is None or self._drawn[left].correct == self._drawn[right].correct:
            return None
        good, bad = (left, right) if self._drawn[left].correct else (right, left)
        return good if self._chance.random() < self._judge.accuracy else bad

    def _outcome(self, stop: Stop) -> Outcome:
        seconds = self._now
        if stop.winner is not None and stop.winner in self._running:
            seconds = self._began[stop.winner] + self._drawn[stop.winner].seconds
            self._spent[stop.winner] = self._drawn[stop.winner].sample.tokens
        for index in self._running:
            self._cancel(index)
        return Outcome(
            correct=stop.winner is not None and self._drawn[stop.winner].correct,
            tokens=sum(self._spent.values()) + self._judged_tokens,
            samples=len(self._began),
            seconds=seconds,
            why=stop.why,
            agreement=stop.agreement,
            confidence=stop.confidence,
        )
