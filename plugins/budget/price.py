"""The shadow price of a token: what a chance of being right must gain per token for the tokens to be spent.

One number per model (or tenant and model) steers mean spend to its target: spend above it raises the price, spend below
lowers it. In control terms a proportional-integral controller on the logarithm of the price: the slow part learns where
the price belongs, the fast part pays debts back, so that the mean over a few hundred requests is right, not only the
trend. It is the dual variable of "most right answers for so many tokens" (Damani et al., arXiv 2410.04707).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

REPAYMENT = 0.12
"""How far each target of debt moves the logarithm of the price until the debt is paid."""
LEARNING_RATE = 0.03
"""The part of that movement which each request makes last. Much faster, and the price would swing."""
MOST_CREDIT = 10.0
"""Targets that count at most as saved up: a quiet week does not pay for a wild hour."""
MOST_DEBT = 60.0
MOST_REPAID = 25.0
"""Targets of debt that move the price; more is only remembered."""
WIDENING = 1.01
"""How fast the range of prices that made a difference is forgotten, per request."""
SLACK = 1.0
"""How far the price may leave that range, as a logarithm."""


class Price:
    """The price for one mean. Sans-io: `expect` what a request may cost, then `settle` what it cost."""

    __slots__ = ("_base", "_highest", "_lowest", "count", "debt", "mean", "target")

    def __init__(self, target: float, *, base: float | None = None, debt: float = 0.0, count: int = 0) -> None:
        self.target = target
        """Mean tokens of a request."""
        # one more right answer for ten times the mean: a start that a few dozen requests correct
        self._base = math.log(0.1 / target) if base is None else base
        self.debt = debt
        """Spent and on its way beyond the target, in targets; negative for what was saved."""
        self.count = count
        """Requests that were settled."""
        self.mean = target
        """Moving mean of what requests cost, for people."""
        self._lowest = math.inf
        self._highest = 0.0

    @property
    def base(self) -> float:
        """The learnt part, as a logarithm; what is kept over a restart."""
        return self._base

    @property
    def now(self) -> float:
        """Gain in the chance of being right that a token must bring."""
        return math.exp(self._base + REPAYMENT * self._owed)

    @property
    def saved(self) -> float:
        """The part of the credit that may be saved up which is unused, 0 to 1."""
        return min(max(-self.debt / MOST_CREDIT, 0.0), 1.0)

    @property
    def _owed(self) -> float:
        return min(max(self.debt, -MOST_CREDIT), MOST_REPAID)

    def saw(self, rates: Iterable[float]) -> None:
        """Take note of the prices at which a request's choice would change; no others make a difference."""
        told = [rate for rate in rates if rate > 0]
        if told:
            self._lowest = min(self._lowest * WIDENING, *told)
            self._highest = max(self._highest / WIDENING, *told)

    def expect(self, tokens: float) -> None:
        """A request is on its way that will cost about so much: the next ones know of it before it ends."""
        self._owe(tokens - self.target)

    def withdraw(self, expected: float) -> None:
        """A request that was expected to cost so much does not count: it failed, or was served from memory."""
        self._owe(self.target - expected)

    def settle(self, tokens: float, expected: float) -> None:
        """A request that was expected to cost `expected` has cost `tokens`."""
        self._owe(tokens - expected)
        self.count += 1
        self.mean += (tokens - self.mean) / min(self.count, 200)
        if self._highest > 0:  # else no price made a difference
            self._base += LEARNING_RATE * REPAYMENT * self._owed
            # beyond what makes a difference it would only have to come back
            least, most = math.log(self._lowest) - SLACK, math.log(self._highest) + SLACK
            self._base = min(max(self._base, least), max(least, most))

    def _owe(self, tokens: float) -> None:
        self.debt = min(max(self.debt + tokens / self.target, -MOST_CREDIT), MOST_DEBT)

    def __repr__(self) -> str:
        return f"<Price {self.now:.3g} mean {self.mean:.0f} of {self.target:.0f}, debt {self.debt:+.1f}>"
