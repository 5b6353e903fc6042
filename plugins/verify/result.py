"""What verification leaves for others: `result_of(exchange)`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from predawn.plugins.verify.settings import Mode
    from predawn.proxy.exchange import Exchange

STATE_KEY = "verify.result"
LOOKED_KEY = "verify.looked"
"""Of the client's exchange: a list of `Looked`, one for each answer that each verifier read, samples included."""
MOST_LOOKED = 256
HEADER = "x-predawn-verify"
TRAILER = "x-predawn-verified"


@dataclass(frozen=True, slots=True)
class Looked:
    """How one verifier looked at one answer, for whoever draws time; by the clock of `exchange.started`."""

    verifier: str
    began_s: float
    ended_s: float
    busy_s: float
    """How long its looks took together."""
    checks: int
    violations: int
    worst: str
    """The outcome that counts most: `violation`, `unsure` or `pass`."""


@dataclass(slots=True)
class VerifyResult:
    """How the verification of one answer went, so far."""

    mode: Mode
    checks: int = 0
    passed: int = 0
    violations: int = 0
    unsure: int = 0
    """Steps no verifier had a word on: shed, late and failed checks among them."""
    missed: int = 0
    """Those checks: shed, late or failed, whatever their verifier wants that to mean."""
    corrections: int = 0
    retries: int = 0
    stopped: bool = False
    accepted: bool = False
    """True if a violation was let through."""
    ways: list[str] = field(default_factory=list[str])
    """How the upstream went on, cut by cut: `completions`, `prefill` or `feedback`."""
    added_s: float = 0.0
    """What the client waited after the generation had ended."""

    @property
    def word(self) -> str:
        """The whole in a word: `pass`, `corrected`, `violation`, `stopped` or `unsure`."""
        if self.stopped:
            return "stopped"
        if self.accepted:
            return "violation"
        if self.corrections or self.retries:
            return "corrected"
        return "unsure" if self.missed or (self.unsure and not self.passed) else "pass"

    @property
    def as_field(self) -> str:
        """For a header, as RFC 9651 has items: `corrected;checks=12;violations=1`."""
        missed = f";missed={self.missed}" if self.missed else ""
        return f"{self.word};checks={self.checks};violations={self.violations}{missed}"

    def as_usage(self) -> dict[str, Any]:
        """For `usage.predawn`."""
        told: dict[str, Any] = {"outcome": self.word, "checks": self.checks, "violations": self.violations}
        if self.corrections or self.retries:
            told |= {"corrections": self.corrections, "retries": self.retries}
        if self.missed:
            told["missed"] = self.missed
        return {"verify": told}


def result_of(exchange: Exchange) -> VerifyResult | None:
    """What verification says of an exchange; `None` where it was not verified."""
    found = exchange.state.get(STATE_KEY)
    return found if isinstance(found, VerifyResult) else None
