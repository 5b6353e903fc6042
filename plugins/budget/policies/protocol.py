"""What a policy is given and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from predawn.plugins.budget.features import Kind
    from predawn.plugins.budget.learning import State
    from predawn.plugins.budget.price import Price
    from predawn.plugins.budget.settings import TierSettings


@dataclass(frozen=True, slots=True)
class Case:
    """A request, as far as a policy cares."""

    difficulty: float
    kind: Kind
    state: State
    """What is known of the tenant's requests to the model."""
    tiers: Sequence[TierSettings]
    """Those that differ for this model, cheapest first; at least one."""
    price: Price | None = None
    """Where a mean is to be kept."""
    values: Sequence[float] = ()
    """The request's features, for what it costs."""

    def cost(self, tier: str) -> float:
        """Tokens that the request is expected to cost in a tier."""
        return self.state.cost(self.kind, tier, self.difficulty, self.values)


@dataclass(frozen=True, slots=True)
class Choice:
    """A tier, what it is expected to cost in tokens, and why it was chosen."""

    tier: TierSettings
    expected: float
    why: str


class Policy(Protocol):
    """Chooses a tier."""

    @property
    def name(self) -> str: ...

    def choose(self, case: Case) -> Choice: ...
