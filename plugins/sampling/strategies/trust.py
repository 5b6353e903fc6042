"""How far one sure answer is to be trusted: learnt from votes of earlier requests.

An answer whose own log-probabilities are high is often right, but how high is high enough differs from model to model
and from effort to effort. So it is learnt: wherever others voted, each sample's sureness is remembered together with
whether they said the same. Isotonic regression (pool adjacent violators) makes of that the chance that an answer as
sure as this one would be confirmed. It answers by selective prediction: take what is sure enough, ask on about the rest
(Geifman and El-Yaniv, arXiv 1705.08500). Where sureness tells nothing, no chance is high enough, and votes go on.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Final, NamedTuple

MOST: Final = 512
"""Samples remembered, the newest."""
ENOUGH: Final = 32
"""Those that come before anything is said of others."""
LEAST_ABOVE: Final = 12
"""Samples that the surest ones' chance must rest on."""
AT_ONCE: Final = 8
"""Samples learnt between two regressions, which take 0.2 ms."""
CHECKED: Final = 32
"""Of so many requests answered by one sample, the next is put to a vote: else nobody would notice a model's change."""
FADING: Final = 0.97
"""What the next first sample leaves of the weight of those before it."""
UNHEARD: Final = 0.5
"""The chance of a sample less sure than any that was learnt from, at most."""
SILENT: Final = 3
"""Votes without any log-probability after which none is held only to learn from it."""
WITNESSES: Final = 2
"""Other samples that must say the same for a sample to be confirmed or refuted by them."""


class Place(NamedTuple):
    """Whose samples, of what, at which effort."""

    tenant: str
    model: str
    effort: str


class Step(NamedTuple):
    """From this sureness on, so many were confirmed of so many."""

    sureness: float
    confirmed: float
    seen: int

    @property
    def share(self) -> float:
        return self.confirmed / self.seen

    @property
    def chance(self) -> float:
        """The share, as if one more had been half confirmed: twelve of twelve prove no certainty."""
        return (self.confirmed + 0.5) / (self.seen + 1.0)


class Trust:
    """What is known of one tenant's samples of one model at one effort."""

    __slots__ = ("_firsts", "_fresh", "_known", "_silent", "_steps", "_sure", "_unchecked", "is_loaded", "unwritten")

    def __init__(self) -> None:
        self.is_loaded = False
        """True once the store has been asked."""
        self.unwritten = 0
        """Samples learnt from that the store does not have."""
        self._known: deque[tuple[float, bool]] = deque(maxlen=MOST)
        self._steps: list[Step] = []
        self._fresh = 0
        self._unchecked = 0
        self._silent = 0
        self._firsts = self._sure = 4.0
        """First samples of requests, and those that were sure enough, the newer ones counting more."""

    @property
    def is_learnt(self) -> bool:
        return len(self._known) >= ENOUGH

    def learn(self, sureness: float, *, confirmed: bool) -> None:
        """Take in a sample of which others have said what is right."""
        self._known.append((sureness, confirmed))
        self.unwritten += 1
        self._silent = 0
        self._fresh += 1
        if self._fresh >= AT_ONCE or not self._steps:
            self._fresh = 0
            self._steps = stairs(sorted(self._known))

    def heard_nothing(self) -> None:
        """Samples came without saying how sure the model was."""
        self._silent += 1

    @property
    def may_learn(self) -> bool:
        """False where samples do not say how sure the model was."""
        return self._silent < SILENT

    def recall(self, known: Iterable[tuple[float, bool]]) -> None:
        """Put what was learnt before, and read from the store, in front of what has been learnt meanwhile."""
        self._known = deque((*known, *self._known), maxlen=MOST)
        self._steps = stairs(sorted(self._known)) if self._known else []
        self.is_loaded = True

    @property
    def known(self) -> list[tuple[float, bool]]:
        """How sure samples were and whether others confirmed them, the oldest first."""
        return list(self._known)

    def chance(self, sureness: float) -> float | None:
        """The chance that others would confirm a sample as sure as this one; `None` until enough is known."""
        if not self.is_learnt:
            return None
        at = bisect_right(self._steps, sureness, key=_sureness) - 1
        # what is surer is no less likely, though it be known from fewer
        chance = max(step.chance for step in self._steps[: max(at, 0) + 1])
        return chance if at >= 0 else min(chance, UNHEARD)

    def promises(self, chance: float) -> bool:
        """True if the surest samples are confirmed with more than this chance."""
        return self.is_learnt and (self.chance(0.0) or 0.0) > chance

    def tried(self, *, is_sure: bool) -> None:
        """The first sample of a request was sure enough to be its answer, or was not."""
        self._unchecked += is_sure
        self._firsts = self._firsts * FADING + 1.0
        self._sure = self._sure * FADING + is_sure

    @property
    def sure_share(self) -> float:
        """The part of the requests that need one sample only."""
        return self._sure / self._firsts

    def is_due(self) -> bool:
        """True once in a while, for the request that is to be put to a vote although its first sample may be sure."""
        if self._unchecked < CHECKED:
            return False
        self._unchecked = 0
        return True

    def __repr__(self) -> str:
        steps = ", ".join(f"{step.share:.0%} from {step.sureness:.3f}" for step in self._steps)
        return f"<Trust {len(self._known)} samples: {steps}>"


def stairs(known: list[tuple[float, bool]]) -> list[Step]:
    """The rising steps that fit the shares best; `known` goes from the least sure to the surest. What rests on too
    few at the top is put to the step below."""
    steps: list[Step] = []
    for sureness, same in groupby(known, key=itemgetter(0)):
        confirmed = [was for _, was in same]
        steps.append(Step(sureness, float(sum(confirmed)), len(confirmed)))
        while len(steps) > 1 and steps[-1].share <= steps[-2].share:
            _pool(steps)
    while len(steps) > 1 and steps[-1].seen < LEAST_ABOVE:
        _pool(steps)
    assert all(lower.share < upper.share for lower, upper in pairwise(steps))
    return steps


def _pool(steps: list[Step]) -> None:
    upper = steps.pop()
    lower = steps[-1]
    steps[-1] = Step(lower.sureness, lower.confirmed + upper.confirmed, lower.seen + upper.seen)


def _sureness(step: Step) -> float:
    return step.sureness


class Trusts:
    """One for each tenant, model and effort; the one unused for longest is forgotten beyond `most`."""

    def __init__(self, most: int = 1000) -> None:
        self._most = most
        self._trusts: OrderedDict[Place, Trust] = OrderedDict()

    def __len__(self) -> int:
        return len(self._trusts)

    def __iter__(self) -> Iterator[tuple[Place, Trust]]:
        return iter(self._trusts.items())

    def of(self, place: Place) -> Trust:
        """The one for this place; a new one where there is none."""
        trust = self._trusts.get(place)
        if trust is not None:
            self._trusts.move_to_end(place)
            return trust
        trust = self._trusts[place] = Trust()
        if len(self._trusts) > self._most:
            self._trusts.popitem(last=False)
        return trust
