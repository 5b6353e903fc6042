"""What an engine is doing, and what it has done."""

from __future__ import annotations

from dataclasses import dataclass, field

from predawn.kernels.engine.steps import Told


@dataclass(slots=True)
class Counts:
    """Sums since the engine was made."""

    prefill_tokens: int = 0
    """Prompt tokens computed."""
    cached_tokens: int = 0
    """Prompt tokens taken from earlier prompts instead."""
    decode_tokens: int = 0
    """Tokens generated."""
    decode_rows: int = 0
    """Rows computed for them; more than tokens where drafts were wrong or pages had run out."""
    drafted: int = 0
    accepted: int = 0
    """Drafted tokens that were right."""
    refused: int = 0
    """Requests refused because too many waited."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """The state of an engine, and its `Counts`."""

    running: int
    """Sequences that hold pages."""
    waiting: int
    """Requests of which no choice runs: new ones, and those that had to give their pages back."""
    pages: int
    free_pages: int
    """Those of kept prompts count as used, though requests may take them."""
    preemptions: int
    """How often a sequence had to give its pages back."""
    prefill_tokens: int
    cached_tokens: int
    decode_tokens: int
    decode_rows: int
    drafted: int
    accepted: int
    refused: int
    steps: Told = field(default_factory=dict)
