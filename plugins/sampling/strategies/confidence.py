"""`confidence`: votes weighed by how sure the model was, and samples given up where it becomes unsure.

DeepConf (arXiv 2508.15260): some samples run to their end; what most of them never fell below becomes the line, and a
later sample is given up as soon as its least sure stretch is below. Without log-probabilities it is a plain vote.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from predawn.plugins.sampling.strategies.protocol import Action, Sample
from predawn.plugins.sampling.strategies.tally import weight_of
from predawn.plugins.sampling.strategies.vote import Vote

WARM_UP = 4
"""Samples that run to their end before any is given up."""
KEPT = 0.75
"""Share of the finished samples that the line would have let through."""
LEAST_WEIGHT = 0.05


def sureness(samples: Sequence[Sample]) -> dict[int, float] | None:
    """How sure the model was of each, by number: log-probabilities, so at most 0. `None` if it is not told of all.

    Where it was least sure, if that is known of all; short answers have only a mean.
    """
    for told in ([sample.worst_logprob for sample in samples], [sample.mean_logprob for sample in samples]):
        known = [min(0.0, value) for value in told if value is not None and not math.isnan(value)]
        if known and len(known) == len(samples):
            return {sample.index: value for sample, value in zip(samples, known, strict=True)}
    return None


class Confidence(Vote):
    """A vote in which unsure answers count less; what they are unsure of is compared with the surest."""

    name: str = "confidence"
    progress_every = 8

    def weights(self) -> Mapping[int, float] | None:
        complete = self.pool.complete
        sure = sureness(complete)
        if sure is None:
            return None
        best = max(sure.values())
        return {
            sample.index: max(LEAST_WEIGHT, math.exp(sure[sample.index] - best)) * weight_of(sample)
            for sample in complete
        }

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
