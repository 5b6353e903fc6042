"""A request on its way, as budget sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from predawn.plugins.budget.control import Wish

if TYPE_CHECKING:
    from predawn.plugins import Budget, Difficulty, Exchange
    from predawn.plugins.budget.ceilings import Fitted
    from predawn.plugins.budget.features import Features
    from predawn.plugins.budget.policies import Choice
    from predawn.plugins.budget.price import Price
    from predawn.proxy.exchange import RouteName

STATE: Final = "budget.seen"
ROUTES: Final[frozenset[RouteName]] = frozenset({"chat", "completions", "responses", "messages"})
STANDARD: Final = Wish()
UNKNOWN_DIFFICULTY: Final = 0.5


@dataclass(frozen=True, slots=True)
class Granted:
    """What a request was given."""

    choice: Choice
    budget: Budget
    price: Price | None
    expected: float
    """Tokens that it is expected to cost."""
    is_usual: bool = True
    """False where the client or a ceiling made something else of the tier, so that it says nothing of the tier."""


@dataclass(slots=True)
class Seen:
    """What was found out about a request, and what was decided."""

    wish: Wish = STANDARD
    features: Features | None = None
    views: dict[str, Difficulty] = field(default_factory=dict["str", "Difficulty"])
    """What each estimator said."""
    granted: Granted | None = None
    fitted: Fitted | None = None
    """What it holds under the ceilings, or why it is refused; also where nothing was granted."""
    probed: int = 0
    """Output tokens that a probe took, which are settled already."""


def difficulty_of(exchange: Exchange) -> float:
    """What was found, if it is a chance: other plugins may say anything."""
    found = exchange.difficulty
    return found.score if found is not None and 0.0 <= found.score <= 1.0 else UNKNOWN_DIFFICULTY


def seen_of(exchange: Exchange) -> Seen:
    """The request's; made on first use."""
    seen: Seen | None = exchange.state.get(STATE)
    if seen is None:
        seen = exchange.state[STATE] = Seen()
    return seen
