"""What a violation does in each mode, and the policy for an answer that stays wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from predawn.plugins.verify.settings import Mode, Policy

Deed: TypeAlias = Literal["flag", "stop", "rewrite", "retry"]
"""Let it through with a note, end the choice there, cut and continue it, or begin it again."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the settings allow, or a request within them."""

    corrections: int = 4
    retries: int = 1
    then: Policy = "stop"


class Rule:
    """Decides about one choice of an answer, and counts what it has done."""

    __slots__ = ("_corrections", "_retries", "_then", "holds")

    def __init__(self, mode: Mode, rules: Rules) -> None:
        self.holds = mode in ("gate", "intervene")
        """Whether text waits until it is verified."""
        self._corrections = rules.corrections if mode == "intervene" else 0
        self._retries = rules.retries
        self._then = rules.then

    def violated(self, *, is_sent: bool) -> Deed:
        """What to do about a violation; `is_sent` if the client has seen some of what a new beginning would replace."""
        if self._corrections > 0:
            self._corrections -= 1
            return "rewrite"
        if self._then == "accept":
            return "flag"
        if self._then == "retry" and self._retries > 0 and not is_sent:
            self._retries -= 1
            return "retry"
        return "stop"
