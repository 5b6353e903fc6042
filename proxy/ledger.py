"""What a request is judged, allowed, and charged: difficulty, budget, verdicts, and the ledger with its calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Effort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "max"]
Purpose: TypeAlias = Literal["serve", "sleep", "sample", "probe", "verify"]
Phase: TypeAlias = Literal["serve", "discarded", "verify"]


@dataclass(slots=True)
class Call:
    """One request to an upstream, as it stands on the ledger: serving, sampling, probing or verifying."""

    upstream: str
    model: str
    purpose: Purpose = "serve"
    status: int = 0
    outcome: str = "pending"
    """`ok`, `cancelled`, or one of the reasons of `UpstreamError`."""
    started_s: float = 0.0
    """Seconds after the exchange began."""
    seconds: float = 0.0
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    """Part of `prompt_tokens`."""
    alias: str = ""
    """What it was asked as; empty for the exchange's own alias."""
    phase: Phase = "serve"
    """What its tokens were spent on: the answer, a sample that was not taken, or a check."""
    wasted_tokens: int = 0
    """Part of the output of a call that serves, but is no part of the answer."""
    estimated: bool = False
    """True where the upstream reported no usage, or was not let finish."""
    booked: bool = False
    """True once its tokens are on the ledger; for an exchange's own call that is at its end."""


@dataclass(slots=True)
class Ledger:
    """Tokens and seconds of one exchange by phase; nothing stays uncounted, cancelled calls included."""

    prompt: int = 0
    cached_prompt: int = 0
    output: int = 0
    reasoning: int = 0
    """Part of `output` that the upstream reported as reasoning."""
    discarded: int = 0
    """Output tokens of samples that were not taken, of probes, and of text that was cut off."""
    discarded_prompt: int = 0
    """Prompt tokens of the same calls."""
    verify: int = 0
    """Output tokens of checks."""
    verify_prompt: int = 0
    slept: float = 0.0
    """Tokens spent before the request, amortised over the requests that use them."""
    estimated: bool = False
    """True where the upstream reported no usage and tokens were counted by chunks."""
    spend_usd: float = 0.0
    chunks: int = 0
    total_s: float = 0.0
    plugin_s: float = 0.0
    upstream_s: float = 0.0
    first_token_s: float | None = None
    last_token_s: float | None = None
    max_gap_s: float = 0.0
    calls: list[Call] = field(default_factory=list)
    is_answer_booked: bool = False
    """True once the answer's own tokens are here, so that the relay's reading of the usage is not added to them."""

    @property
    def own_call(self) -> Call | None:
        """The last call that is not booked: the exchange's own, not one that a plugin made beside it."""
        for call in reversed(self.calls):
            if not call.booked:
                return call
        return None

    @property
    def all_prompt(self) -> int:
        """Prompt tokens of everything that was asked for the exchange."""
        return self.prompt + self.discarded_prompt + self.verify_prompt

    @property
    def all_output(self) -> int:
        """Output tokens of everything that was asked for the exchange."""
        return self.output + self.discarded + self.verify


@dataclass(frozen=True, slots=True)
class Difficulty:
    """How hard a request looks: `score` and `confidence` in [0, 1], and who says so."""

    score: float
    confidence: float = 0.0
    estimator: str = ""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a request may cost; `None` leaves a limit to the client and the upstream."""

    effort: Effort | None = None
    max_output_tokens: int | None = None
    samples: int = 1
    rounds: int = 1
    verify: bool = False
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verifier says of one step."""

    outcome: Literal["pass", "violation", "unsure"]
    where: str = ""
    feedback: str = ""
    corrected: str | None = None
    verifier: str = ""
    """Who says so."""
    choice: int = 0
    """Which choice of the answer the step belongs to; set by whoever asked the verifier."""
    at_s: float | None = field(default=None, compare=False)
    """Seconds after the exchange began, when it was said."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Something a plugin or the proxy decided about an exchange, kept for `GET /v1/exchanges/{id}`."""

    by: str
    what: str
    detail: Mapping[str, Any] = field(default_factory=dict[str, Any])
    at_s: float | None = field(default=None, compare=False)
    """Seconds after the exchange began, where it is known."""
