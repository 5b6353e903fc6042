"""The chance that more samples would change which answer leads.

Votes are an urn (Dirichlet process with a discount, as of Pitman and Yor): every vote makes its answer likelier to be
drawn again, and some room is kept for answers nobody has given yet. Of the draws that are left, the chance is counted
exactly that a rival gets past the leader, for each rival by itself; their sum bounds the whole from above. With no
draws left, or fewer than the lead, it is 0 (or a half for a tie): the verdict is that of all samples. Aggarwal et al.
(arXiv 2305.11860) stop on a Beta posterior over the two best; that knows neither an end of the draws nor answers
still unseen.

Chosen on simulated votes where one sample is right in 82-84 %, sixteen in 95-98 %, and wrong answers scatter: with
the values here and ε = 0.05, 0.3 of the tokens of all sixteen, 0.2 to 0.3 points below them. Without the discount it
is 0.32 of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import ceil
from operator import mul

UNSEEN = 0.5
"""Votes that answers not given so far together count for."""
SCATTER = 0.4
"""What is taken from each answer's votes: one that was given once is more likely a slip than a rival."""
HORIZON = 32
"""Draws that are looked ahead at most: the chance hardly grows beyond, and the time to count it does (50 µs here)."""
MOST_RIVALS = 4
"""Rivals whose chances are counted one by one; the others have fewer votes, and each counts as much as the last of
these."""


def risk(votes: Sequence[float], left: int) -> float:
    """The chance, in [0, 1], that after `left` more votes another answer leads than now.

    `votes` are the votes per answer in any order; each of those that are left counts 1. With no votes, 1.
    """
    ordered = sorted((round(count, 2) for count in votes if count > 0), reverse=True)
    if not ordered:
        return 1.0
    return _risk(tuple(ordered), min(max(0, left), HORIZON))


def confidence(votes: Sequence[float], left: int) -> float:
    """The chance that the leader stays the leader."""
    return 1.0 - risk(votes, left)


def needed(votes: Sequence[float], left: int, epsilon: float) -> int:
    """The fewest further votes after which, were all of them for the leader, the risk would be below `epsilon`.

    `left` if even all of them would not do.
    """
    ordered = sorted(votes, reverse=True) or [0.0]
    low, high = 0, max(0, left)
    while low < high:
        middle = (low + high) // 2
        if risk([ordered[0] + middle, *ordered[1:]], left - middle) < epsilon:
            high = middle
        else:
            low = middle + 1
    return high


@lru_cache(maxsize=8192)
def _risk(votes: tuple[float, ...], left: int) -> float:
    leader, *rivals = votes
    total = sum(votes) + UNSEEN
    each = [_overtakes(leader, rival, total, left) for rival in rivals[:MOST_RIVALS]]
    if len(rivals) > MOST_RIVALS:
        each.append(each[-1] * (len(rivals) - MOST_RIVALS))
    return min(1.0, sum(each) + _overtakes(leader, 0.0, total, left))


def _overtakes(leader: float, rival: float, total: float, left: int) -> float:
    """The chance that a rival ends with more votes than the leader; a tie counts half."""
    lead = leader - rival
    if lead > left:
        return 0.0
    leading = leader - min(SCATTER, leader / 2)
    following = rival - min(SCATTER, rival / 2) if rival else UNSEEN
    gains = _ways(round(leading, 9), left)
    chances = _ways(round(following, 9), left)
    others = _ways(round(max(total - leading - following, 1e-9), 9), left)[::-1]
    ways = 0.0
    for got in range(max(0, ceil(lead)), left + 1):
        spare = left - got
        least_lost = got - lead
        kept = (
            min(int(least_lost), spare) + 1
        )  # the leader may get so many votes and still not stay ahead: 0 … kept - 1
        inner = sum(map(mul, gains[:kept], others[got : got + kept]))
        if kept - 1 == least_lost:
            inner -= gains[kept - 1] * others[got + kept - 1] / 2
        ways += chances[got] * inner
    return ways / _ways(round(total, 9), left)[left]


@lru_cache(maxsize=1024)
def _ways(mass: float, draws: int) -> tuple[float, ...]:
    """Weights of 0 … `draws` draws of something with this mass: the rising factorial over the factorial."""
    weights = [1.0] * (draws + 1)
    for drawn in range(1, draws + 1):
        weights[drawn] = weights[drawn - 1] * (mass + drawn - 1) / drawn
    return tuple(weights)
