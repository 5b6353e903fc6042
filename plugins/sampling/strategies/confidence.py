"""`confidence`: votes weighed by how sure the model was, one sure answer in place of a vote, and unsure ones given up.

DeepConf (arXiv 2508.15260): some samples run to their end; what most of them never fell below becomes the line, and a
later sample is given up as soon as its least sure stretch is below. What earlier requests taught of how sure is sure
enough (`trust.py`) goes further: then one sample is drawn, and more only if that one is not. Without log-probabilities
it is a plain vote.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from predawn.plugins.sampling.strategies.protocol import Action, Options, Sample, Stop
from predawn.plugins.sampling.strategies.tally import Group, Tally, weight_of
from predawn.plugins.sampling.strategies.trust import WITNESSES, Trust
from predawn.plugins.sampling.strategies.vote import Vote

WARM_UP = 4
"""Samples that run to their end before any is given up."""
KEPT = 0.75
"""Share of the finished samples that the line would have let through."""
LEAST_WEIGHT = 0.05
USUAL_LEAST = 2
"""Whoever asks for at least more samples than these gets them, however sure the first one is."""


def sureness(samples: Sequence[Sample]) -> dict[int, float] | None:
    """How sure the model was of each, by number: log-probabilities, so at most 0. `None` if it is not told of all.

    Where it was least sure, if that is known of all; short answers have only a mean.
    """
    for told in ([sample.worst_logprob for sample in samples], [sample.mean_logprob for sample in samples]):
        known = [min(0.0, value) for value in told if value is not None and not math.isnan(value)]
        if known and len(known) == len(samples):
            return {sample.index: value for sample, value in zip(samples, known, strict=True)}
    return None


def _is_to_teach(trust: Trust) -> bool:
    return trust.is_due() if trust.is_learnt else trust.may_learn


class Confidence(Vote):
    """A vote in which unsure answers count less, and which ends with one that is surely sure enough."""

    name: str = "confidence"
    progress_every = 8

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        trust = options.trust
        draws_all = options.min_samples > USUAL_LEAST or options.min_samples >= options.samples
        self._trust = None if draws_all else trust
        self._checks = self._trust is not None and _is_to_teach(self._trust)
        """True for a request that others are to learn from: it is put to a vote whatever its first sample says."""

    def next(self) -> Iterator[Action]:
        tally = self.tally
        sure = self._sure_leader(tally)
        if self._trust is not None and self._trusts and len(self.pool.finished) == 1:
            self._trust.tried(is_sure=sure is not None)
        if sure is None:
            yield from super().next()
        else:
            yield self._stop(sure, tally)

    def _stop(self, sure: Group, tally: Tally) -> Stop:
        return Stop(sure.best.index, "sure", agreement=tally.agreement, confidence=self._chance_of(sure))

    def conclude(self, why: str) -> Iterator[Action]:
        self._teach()
        yield from super().conclude(why)

    @property
    def _trusts(self) -> bool:
        """True where one sample may be the answer."""
        trust = self._trust
        return trust is not None and trust.is_learnt and not self._checks and trust.promises(1 - self.options.epsilon)

    @property
    def _few(self) -> int:
        """Samples among which one that is sure is to be expected."""
        assert self._trust is not None
        return max(1, round(1 / max(self._trust.sure_share, 0.01)))

    @property
    def least(self) -> int:
        return max(super().least, WITNESSES + 1) if self._checks else super().least

    def _wanted(self, tally: Tally) -> int:
        wanted = super()._wanted(tally)
        return min(wanted, self._few) if self._trusts else wanted

    def _sure_leader(self, tally: Tally) -> Group | None:
        """The leader, if one of its samples is so sure that others would hardly contradict it."""
        leader = tally.leader
        if leader is None or not self._trusts:
            return None
        return leader if self._chance_of(leader) > 1 - self.options.epsilon else None

    def _chance_of(self, group: Group) -> float:
        return max((self._chance(sample) or 0.0) * weight_of(sample) for sample in group.samples)

    def _chance(self, sample: Sample) -> float | None:
        sure = sureness([sample])
        return self._trust.chance(sure[sample.index]) if self._trust is not None and sure is not None else None

    def _teach(self) -> None:
        """Every sample about which enough others agree among themselves says how far to trust such samples."""
        if self._trust is None:
            return
        complete = self.pool.complete
        if complete and sureness(complete) is None:
            self._trust.heard_nothing()
            return
        groups = Tally(complete, dict.fromkeys(range(self.pool.started), 1.0)).groups
        for group in groups:
            for sample in group.samples:
                witnesses = max((len(one.samples) - (one is group) for one in groups), default=0)
                sure = sureness([sample])
                if witnesses >= WITNESSES and sure is not None:
                    self._trust.learn(sure[sample.index], confirmed=len(group.samples) - 1 == witnesses)

    def weights(self) -> Mapping[int, float] | None:
        complete = self.pool.complete
        sure = sureness(complete)
        if sure is None:
            return None
        best = max(sure.values())
        counts = {index: math.exp(value - best) for index, value in sure.items()}
        if self._trusts:
            chances = {sample.index: self._chance(sample) or 0.0 for sample in complete}
            # where none is sure, the surest still counts as one: else no number of them would settle it
            counts = {index: chance / max(chances.values()) for index, chance in chances.items()}
        return {sample.index: max(LEAST_WEIGHT, counts[sample.index]) * weight_of(sample) for sample in complete}

    def grew(self, sample: Sample) -> Iterator[Action]:
        """Give it up if it became less sure than what most others never fell below; its first words tell nothing."""
        complete = self.pool.complete
        is_known = sample.worst_logprob is not None and len(complete) >= WARM_UP
        sure = sureness([*complete, sample]) if is_known else None
        if sure is None:
            return
        own = sure.pop(sample.index)
        if own < sorted(sure.values())[round(len(sure) * (1 - KEPT))]:
            yield from self.pool.cancel([sample.index])
            yield from self.next()
