"""What sampling leaves for others: `result_of(exchange)`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from predawn.proxy.exchange import Exchange

STATE_KEY = "sampling.result"


@dataclass(frozen=True, slots=True)
class SamplingResult:
    """How an answer was chosen."""

    strategy: str
    drawn: int
    """Samples that were asked for, failed and cancelled ones included; not those that could not be paid."""
    agreement: float | None
    """Share of the comparable answers that say what the chosen one says; `None` where there were not two of them."""
    why: str
    """Why it stopped: one of `strategies.protocol.WHYS`, or `abandoned` by a client that left before."""
    tokens: int
    """Output tokens of everything that was drawn or judged, the chosen one included."""
    selected: int | None
    """Index of the chosen sample; `None` if every one failed."""
    confidence: float | None = None
    """The posterior chance that the chosen answer would have stayed the leader."""
    answer: str | None = None
    """What the chosen sample answers, in short, where that could be extracted."""
    choice: int = 0
    """Number of the chosen sample among the choices of its call: verdicts on it bear this number."""


def result_of(exchange: Exchange) -> SamplingResult | None:
    """What sampling says of an exchange; `None` where one plain call was made."""
    found = exchange.state.get(STATE_KEY)
    return found if isinstance(found, SamplingResult) else None
