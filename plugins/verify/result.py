"""What verification leaves for others: `result_of(exchange)`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from predawn.plugins.verify.settings import Mode
    from predawn.proxy.exchange import Exchange

STATE_KEY = "verify.result"
HEADER = "x-predawn-verify"
MOST_SPANS = 64
TRAILER = "x-predawn-verified"


@dataclass(slots=True)
class VerifyResult:
    """How the verification of one answer went, so far."""

    mode: Mode
    checks: int = 0
    passed: int = 0
    violations: int = 0
    unsure: int = 0
    """Steps no verifier had a word on: shed, late and failed checks among them."""
    corrections: int = 0
    retries: int = 0
    stopped: bool = False
    accepted: bool = False
    """True if a violation was let through."""
    ways: list[str] = field(default_factory=list[str])
    """How the upstream went on, cut by cut: `completions`, `prefill` or `feedback`."""
    added_s: float = 0.0
    """What the client waited after the generation had ended."""

    spans: dict[str, list[tuple[float, float]]] = field(default_factory=dict[str, "list[tuple[float, float]]"])
    """By verifier, when it looked: from and to, by the clock of `exchange.started`; at most `MOST_SPANS` of each."""

    @property
    def word(self) -> str:
        """The whole in a word: `pass`, `corrected`, `violation`, `stopped` or `unsure`."""
        if self.stopped:
            return "stopped"
        if self.accepted:
            return "violation"
        if self.corrections or self.retries:
            return "corrected"
        return "unsure" if self.unsure and not self.passed else "pass"

    @property
    def as_field(self) -> str:
        """For a header, as RFC 9651 has items: `corrected;checks=12;violations=1`."""
        return f"{self.word};checks={self.checks};violations={self.violations}"

    def as_usage(self) -> dict[str, Any]:
        """For `usage.predawn`."""
        told: dict[str, Any] = {"outcome": self.word, "checks": self.checks, "violations": self.violations}
        if self.corrections or self.retries:
            told |= {"corrections": self.corrections, "retries": self.retries}
        return {"verify": told}


def result_of(exchange: Exchange) -> VerifyResult | None:
    """What verification says of an exchange; `None` where it was not verified."""
    found = exchange.state.get(STATE_KEY)
    return found if isinstance(found, VerifyResult) else None
