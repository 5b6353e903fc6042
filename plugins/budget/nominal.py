"""What a tier is thought to cost before anything was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from predawn.plugins.budget.settings import TierSettings
    from predawn.proxy.exchange import Effort

ANSWER_TOKENS: Final = 150.0
THOUGHT: Final[Mapping[Effort | None, float]] = {
    None: 300.0,
    "none": 0.0,
    "minimal": 100.0,
    "low": 300.0,
    "medium": 900.0,
    "high": 2500.0,
    "max": 8000.0,
}
"""Tokens of thought that an effort comes to in the mean."""


def nominal_tokens(tier: TierSettings) -> float:
    """The settings' own figure, or a guess from what the tier allows."""
    if tier.tokens is not None:
        return tier.tokens
    one = ANSWER_TOKENS + THOUGHT[tier.effort]
    if tier.max_output_tokens is not None:
        one = min(one, tier.max_output_tokens)
    return one * tier.samples * tier.rounds
