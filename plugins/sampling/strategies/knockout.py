"""A judge's choice between answers that cannot be counted: pairs in rounds, the better one goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence

from predawn.plugins.sampling.strategies.protocol import Action, Judge, Judged, Sample
from predawn.plugins.sampling.strategies.tally import Plainness, is_refuted, plainness

MOST_JUDGED = 16
"""Answers that are compared at most; the plainest are."""


class Knockout:
    """`ask()` asks for the next round, `heard(...)` takes its outcome; `winner` is there once one is left."""

    __slots__ = ("_candidates", "_pairs", "_votes")

    def __init__(self, samples: Sequence[Sample], voters: Sequence[Sample]) -> None:
        """Choose among `samples`; what `voters` say decides where the judge cannot."""
        self._candidates = candidates(samples)
        self._votes = Counter(_said(sample) for sample in voters if sample.complete)
        self._pairs: tuple[tuple[Sample, Sample], ...] = ()

    @property
    def winner(self) -> Sample | None:
        return self._candidates[0] if len(self._candidates) == 1 else None

    @property
    def best(self) -> Sample:
        """The best of those that are left, as far as is known without a judge."""
        return min(self._candidates, key=self._order)

    def ask(self) -> Iterator[Action]:
        """The comparisons of this round; none if there is nothing to compare."""
        entered = self._candidates
        self._pairs = tuple(zip(entered[0::2], entered[1::2], strict=False))
        if self._pairs:
            yield Judge(tuple((left.index, right.index) for left, right in self._pairs))

    def heard(self, event: Judged) -> None:
        """Take the better of each pair on; where the judge does not know, what more samples say, then the plainer."""
        better = {frozenset((said.left, said.right)): said.better for said in event.judgements}
        through: list[Sample] = []
        for left, right in self._pairs:
            choice = better.get(frozenset((left.index, right.index)))
            by_index = {left.index: left, right.index: right}
            through.append(by_index[choice] if choice in by_index else min(left, right, key=self._order))
        through += self._candidates[2 * len(self._pairs) :]
        self._candidates = through
        self._pairs = ()

    def _order(self, sample: Sample) -> tuple[int, Plainness]:
        return -self._votes[_said(sample)], plainness(sample)


def candidates(samples: Sequence[Sample]) -> list[Sample]:
    """The answers worth comparing: whole ones before others, unrefuted before refuted, each answer once, the plainest
    first.

    A list of one or more as long as there are samples at all.
    """
    pool = [sample for sample in samples if sample.complete] or list(samples)
    pool = [sample for sample in pool if not is_refuted(sample)] or pool
    once: dict[Hashable, Sample] = {}
    for sample in sorted(pool, key=plainness):
        once.setdefault(_said(sample), sample)
    return sorted(list(once.values())[:MOST_JUDGED], key=lambda sample: sample.index)


def _said(sample: Sample) -> Hashable:
    if sample.extracted is not None:
        return "answer", sample.extracted.key
    return "text", sample.text.strip() or sample.index
