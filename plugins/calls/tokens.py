"""What calls cost, in tokens, and where on a ledger it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from predawn.plugins import Ledger
    from predawn.proxy.exchange import Phase


@dataclass(frozen=True, slots=True)
class Tokens:
    """What one answer cost. `cached` is a part of `prompt`, `reasoning` one of `output`."""

    prompt: int = 0
    output: int = 0
    cached: int = 0
    reasoning: int = 0
    estimated: bool = False
    """True where the upstream did not tell, or could not because it was not let finish."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Tokens and what they were spent on. Of a call that serves, the first `kept` output tokens are the answer's."""

    tokens: Tokens
    phase: Phase
    kept: int | None = None
    brings_prompt: bool = True
    """False where the answer's prompt is counted already: the answer is made of several calls."""
    kept_reasoning: int | None = None
    """Thoughts among what is kept, where that was counted; else as many as the upstream tells."""

    @property
    def wasted(self) -> int:
        """Output tokens of a call that serves that are no part of the answer."""
        return max(self.tokens.output - self.kept, 0) if self.phase == "serve" and self.kept is not None else 0

    def write(self, ledger: Ledger, sign: int = 1) -> None:
        """Add it to a ledger; with -1, take it off again."""
        tokens = self.tokens
        prompt, output = sign * tokens.prompt, sign * tokens.output
        if self.phase == "verify":
            ledger.verify_prompt += prompt
            ledger.verify += output
        elif self.phase == "discarded":
            ledger.discarded_prompt += prompt
            ledger.discarded += output
        else:
            wasted = sign * self.wasted
            ledger.output += output - wasted
            ledger.discarded += wasted
            reasoning = tokens.reasoning if self.kept_reasoning is None else self.kept_reasoning
            ledger.reasoning += sign * min(reasoning, tokens.output - self.wasted)
            if self.brings_prompt:
                ledger.prompt += prompt
                ledger.cached_prompt += sign * tokens.cached
            else:
                ledger.discarded_prompt += prompt
