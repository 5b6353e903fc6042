"""Votes: which finished samples answer the same, who leads, and how safe that is.

Only samples that ended by themselves and whose answer could be extracted vote. What a sample says is compared by its
key and nothing else; the order in which samples came decides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from predawn.plugins.sampling import posterior
from predawn.plugins.sampling.answers.units import resolved
from predawn.plugins.sampling.strategies.protocol import Sample

Plainness: TypeAlias = tuple[bool, int, int, str, int]
REFUTED = 0.2
"""What a vote counts in which a verifier found a violation: it may be the verifier that errs."""
LONGEST_LOOK = 4000
"""Characters at the end of an answer in which hedging words are counted."""
_HEDGES = re.compile(
    r"\b(?:maybe|perhaps|possibly|probably|likely|might|could be|not (?:entirely )?(?:sure|certain)|i think|i guess|"
    r"i believe|seems?|unclear|assum\w+|approximately|roughly|wait|hmm)\b",
    re.IGNORECASE,
)


def is_refuted(sample: Sample) -> bool:
    """True if a verifier found a violation in it."""
    return any(verdict.outcome == "violation" for verdict in sample.verdicts)


def weight_of(sample: Sample) -> float:
    """What its vote counts, in [0, 1]."""
    return REFUTED if is_refuted(sample) else 1.0


def hedges_in(text: str) -> int:
    """How often the end of a text hedges; worth counting once for each sample."""
    return len(_HEDGES.findall(text[-LONGEST_LOOK:]))


def plainness(sample: Sample) -> Plainness:
    """What decides between equals, smaller first: no violation, fewer hedges, shorter; the rest only makes it
    definite."""
    hedges = sample.hedges if sample.hedges is not None else hedges_in(sample.text)
    return is_refuted(sample), hedges, sample.tokens, sample.text[:LONGEST_LOOK], sample.index


@dataclass(frozen=True, slots=True)
class Group:
    """Samples that answer the same."""

    weight: float
    samples: tuple[Sample, ...]

    @property
    def best(self) -> Sample:
        """The one to show: the plainest."""
        return min(self.samples, key=plainness)


class Tally:
    """The votes of some samples."""

    __slots__ = ("_leader", "groups", "total")

    def __init__(self, samples: Iterable[Sample], weights: Mapping[int, float] | None = None) -> None:
        """Count; `weights` by sample number, in [0, 1], stand in for `weight_of`."""
        voters = [sample for sample in samples if sample.complete and sample.extracted is not None]
        together: dict[Hashable, list[Sample]] = {}
        keys = resolved([sample.extracted.key for sample in voters if sample.extracted is not None])
        for sample, key in zip(voters, keys, strict=True):
            together.setdefault(key, []).append(sample)
        self.groups = sorted(
            (_group(same, weights) for same in together.values()), key=lambda group: group.weight, reverse=True
        )
        """The heaviest first."""
        self.total = len(voters)
        self._leader: Group | None = None

    @property
    def leader(self) -> Group | None:
        """The heaviest group; between equals the one whose best sample is plainer."""
        if self._leader is None and self.groups:
            equals = [group for group in self.groups if group.weight == self.groups[0].weight]
            self._leader = equals[0] if len(equals) == 1 else min(equals, key=lambda group: plainness(group.best))
        return self._leader

    @property
    def is_open(self) -> bool:
        """True while no answer was given more than once."""
        return all(len(group.samples) == 1 for group in self.groups)

    @property
    def votes(self) -> list[float]:
        return [group.weight for group in self.groups]

    @property
    def agreement(self) -> float | None:
        """Share of the comparable samples that answer what the leader answers."""
        return len(self.leader.samples) / self.total if self.leader is not None else None

    def agreement_with(self, sample: Sample) -> float | None:
        """Share of the comparable samples that answer what this one does; `None` if it is not one of them."""
        for group in self.groups:
            if any(same.index == sample.index for same in group.samples):
                return len(group.samples) / self.total
        return None

    def confidence(self, left: int) -> float:
        """The chance that the leader stays the leader over so many more samples."""
        return posterior.confidence(self.votes, left)

    def needed(self, left: int, epsilon: float) -> int:
        """The fewest further votes that could settle it."""
        return posterior.needed(self.votes, left, epsilon)


def _group(samples: Sequence[Sample], weights: Mapping[int, float] | None) -> Group:
    counted = (weight_of(sample) if weights is None else weights.get(sample.index, 0.0) for sample in samples)
    return Group(round(sum(counted), 9), tuple(samples))
