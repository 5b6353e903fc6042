"""Requests and their choices, while the engine works on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from typing import Literal

from predawn.kernels.engine.lookup import Lookup
from predawn.kernels.engine.sampling import Sampling

Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token of one choice."""

    request_id: str
    index: int
    """Which of the request's `n` choices."""
    token_id: int
    logprob: float | None = None
    """Under the model's own distribution; None unless asked for."""
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens with their log-probabilities, likeliest first."""
    finish: Finish | None = None
    """Set on a choice's last token: "stop" if it is an end-of-sequence token, "length" at a limit."""
    cached: int = 0
    """Prompt tokens whose keys and values came from an earlier request; the same on every token of a request."""


@dataclass(eq=False, slots=True)
class Request:
    """A prompt and the choices that continue it."""

    id: str
    number: int
    """Order of arrival."""
    prompt: tuple[int, ...]
    sampling: Sampling
    repeat: int
    """Passes through each stored block."""
    seed: int
    limit: int
    """Tokens of prompt and one choice together, at most."""
    chunks: tuple[bytes, ...] = ()
    """Keys of the prompt's chunks in the prefix cache; none if the request does not share."""
    cached: int = 0
    choices: list[Sequence] = field(default_factory=list["Sequence"])
    """Those not finished."""


@dataclass(eq=False, slots=True)
class Sequence:
    """One choice of a request: its tokens, and the pages that hold the keys and values of the first `computed` of them.

    Without pages it waits. With pages it is active: its prompt is computed in chunks, then its own tokens row by row.
    """

    request: Request
    index: int
    tokens: list[int]
    """Prompt and generated tokens."""
    computed: int = 0
    pages: list[int] = field(default_factory=list[int])
    lookup: Lookup | None = None
    """Made when first needed."""
    spoken: Counter[int] = field(default_factory=Counter[int])
    """How often it has generated each token; kept only if penalties ask for it."""

    def append(self, token: int) -> None:
        """One more token of its own."""
        self.tokens.append(token)
        if self.request.sampling.penalised:
            self.spoken[token] += 1
        if self.lookup is not None:
            self.lookup.push(token)

    @property
    def age(self) -> tuple[int, int]:
        """Sorts by arrival: the smallest is the oldest."""
        return self.request.number, self.index

    @property
    def prompted(self) -> bool:
        """Whether the whole prompt is computed."""
        return self.computed >= len(self.request.prompt)

    @property
    def begun(self) -> bool:
        """Whether it has a token of its own."""
        return len(self.tokens) > len(self.request.prompt)

    @property
    def pending(self) -> int:
        """Tokens not computed yet; at least the newest, for a token is computed to get the next."""
        return len(self.tokens) - self.computed

    @property
    def remaining(self) -> int:
        """Tokens it may still generate."""
        return self.request.limit - len(self.tokens)

    def counts(self, draft: SequenceOf[int] = ()) -> Counter[int]:
        """How often it has generated each token, `draft` included; empty without penalties."""
        return self.spoken + Counter(draft) if draft else self.spoken
