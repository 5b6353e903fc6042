"""What a request asks of its completions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

MOST_LOGPROBS = 20
GREEDY_BELOW = 1e-5
"""Temperatures below this are greedy: dividing logits by less would overflow fp32."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """The sampling parameters of one request, as OpenAI names them; `check` refuses nonsense.

    Order of the filters: `logit_bias` and penalties, temperature, `min_p` and `top_k`, then `top_p` of what they left.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """Keep so many of the likeliest tokens; 0 keeps all."""
    min_p: float = 0.0
    """Keep tokens at least this times as likely as the likeliest."""
    seed: int | None = None
    """The draw of a choice at a position depends on (seed, choice, position) alone; None draws a seed."""
    n: int = 1
    logprobs: int | None = None
    """Report the chosen token's log-probability and those of so many likeliest tokens; None reports nothing."""
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict[int, float])
    ignore_eos: bool = False
    repeat: int | None = None
    """Passes through each stored block, at most the model's own; None takes the model's."""
    lookup: bool = False
    """Draft from n-grams seen before; the tokens stay the same, they only come sooner."""
    width: int = 1
    """Experiment: so many noisy trajectories vote on each token (`width.py`)."""

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken without a draw."""
        return self.temperature < GREEDY_BELOW or self.top_k == 1

    @property
    def penalised(self) -> bool:
        """Whether earlier tokens change the logits of later ones."""
        return self.frequency_penalty != 0.0 or self.presence_penalty != 0.0

    def check(self, vocab: int, repeat: int, most_width: int = 1) -> None:
        """Raises ValueError naming the parameter that a model of `vocab` tokens and `repeat` passes cannot obey."""
        _within("max_tokens", self.max_tokens, 1, math.inf)
        _within("n", self.n, 1, 128)
        _within("temperature", self.temperature, 0.0, 100.0)
        _within("top_p", self.top_p, 0.0, 1.0)
        _within("top_k", self.top_k, 0, math.inf)
        _within("min_p", self.min_p, 0.0, 1.0)
        _within("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _within("presence_penalty", self.presence_penalty, -2.0, 2.0)
        if self.logprobs is not None:
            _within("logprobs", self.logprobs, 0, min(MOST_LOGPROBS, vocab))
        if self.repeat is not None:
            _within("repeat", self.repeat, 1, repeat)
        if self.width != 1:
            self._check_width(repeat, most_width)
        for token_id, bias in self.logit_bias.items():
            _within("logit_bias token", token_id, 0, vocab - 1)
            _within("logit_bias", bias, -100.0, 100.0)

    def _check_width(self, repeat: int, most_width: int) -> None:
        if most_width == 1:
            raise ValueError(f"width is an experiment that is switched off; it must be 1, not {self.width}")
        if (self.repeat or repeat) == 1:
            raise ValueError(
                f"width must be 1 where blocks run once, not {self.width}: there is nothing between passes"
            )
        _within("width", self.width, 1, most_width)


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # false for NaN as well
        limit = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
        raise ValueError(f"{name} must be {limit}, not {value}")
