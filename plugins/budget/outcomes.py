"""How requests ended: what is learnt from, and what is kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from predawn.plugins.budget.features import Kind, Shape

if TYPE_CHECKING:
    from predawn.plugins.sampling.result import SamplingResult
    from predawn.proxy.exchange import Ledger, Verdict

Source: TypeAlias = Literal["none", "agreement", "verdict", "feedback"]
WEIGHTS: Final[dict[Source, float]] = {"none": 0.0, "agreement": 0.5, "verdict": 0.8, "feedback": 1.5}
"""How much a word counts: samples may agree on what is wrong, verifiers see a part, people know."""
UNDISPUTED: Final = 0.9
"""Quality of an answer in which verifiers found nothing wrong."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request that is over, without anything that was said."""

    exchange_id: str
    tenant: str
    model: str
    kind: Kind
    shape: Shape
    values: tuple[float, ...]
    sketch: tuple[int, ...]
    difficulty: float
    """As it was guessed."""
    tier: str
    tokens: float
    """What it cost, as `spent_tokens` counts."""
    at: float
    """Seconds since the epoch."""
    quality: float | None = None
    """0 wrong, 1 right; `None` if nobody could tell."""
    hardness: float | None = None
    """How hard it was after all: the chance that one cheap answer is wrong; `None` if that is not known."""
    source: Source = "none"

    @property
    def weight(self) -> float:
        return WEIGHTS[self.source]


@dataclass(frozen=True, slots=True)
class Judged:
    """What is known of how good an answer was."""

    quality: float | None = None
    hardness: float | None = None
    source: Source = "none"

    def of(self, outcome: Outcome) -> Outcome:
        """The outcome, judged so."""
        return replace(outcome, quality=self.quality, hardness=self.hardness, source=self.source)


UNKNOWN: Final = Judged()


def spent_tokens(ledger: Ledger) -> int:
    """What a request cost beyond being asked once: all output, and the prompts of whatever else was asked for it."""
    return ledger.all_output + ledger.discarded_prompt + ledger.verify_prompt


def judge(verdicts: Sequence[Verdict], sampled: SamplingResult | None) -> Judged:
    """What verifiers and agreement say: of the answer that sampling chose, or of all choices that the client gets.

    Verdicts that are unsure say nothing.
    """
    counted = [one for one in verdicts if one.outcome != "unsure" and (sampled is None or one.choice == sampled.choice)]
    agreement = _usable(sampled.agreement) if sampled is not None and sampled.drawn > 1 else None
    if counted:
        wrong = sum(verdict.outcome == "violation" for verdict in counted) / len(counted)
        # one violation among many steps spoils an answer, unless it was mended, which a choice's last verdict tells
        last = {verdict.choice: verdict.outcome for verdict in counted}
        is_spoilt = "violation" in last.values()
        quality = 0.1 if is_spoilt else UNDISPUTED - 0.3 * wrong
        hardness = 1.0 if wrong else (1.0 - agreement if agreement is not None else None)
        return Judged(quality, 1 - UNDISPUTED if hardness is None else hardness, "verdict")
    if agreement is None or sampled is None:
        return UNKNOWN
    confidence = _usable(sampled.confidence)
    quality = confidence if confidence is not None else agreement * (2.0 - agreement)
    return Judged(quality, 1.0 - agreement, "agreement")


def told(score: float) -> Judged:
    """What a client's feedback says: 0 wrong, 1 right."""
    return Judged(score, 1.0 - score, "feedback")


def _usable(share: float | None) -> float | None:
    return share if share is not None and 0.0 <= share <= 1.0 else None
