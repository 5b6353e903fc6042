"""What the demo asks: stories of quantities, which the bundled model knows, or one question of anybody's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Question:
    """One request of the demo."""

    title: str
    """What it shows, in a few words for the table."""
    text: str
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Members of the request beside model, messages and stream."""
    expected: str | None = None
    """The right answer, if there is just one."""


SHORT: Final = "Ann has 5 apples. Bob has 4 more than Ann. How many apples does Bob have?"
LONG: Final = (
    "Ann has 5 apples. Bob has 4 more than Ann. Cat has twice as many as Bob. Dan has 3 fewer than Cat. "
    "Eve has 6 more than Dan."
)
ASKED: Final = "How many apples does Eve have?"
NOTES: Final = "Notes: Ann = 5. Bob = 9. Cat = 18. Dan = 15. Eve = 21."
CAPITAL: Final = "What is the capital of France? Answer in one short sentence."

AT_ONCE: Final = {"reasoning_effort": "none", "temperature": 0, "max_tokens": 16}
STEP_BY_STEP: Final = {"reasoning_effort": "high", "temperature": 0, "max_tokens": 400}

STORIES: Final = (
    Question("1 step, at once", SHORT, AT_ONCE, "9"),
    Question("4 steps, at once", f"{LONG} {ASKED}", AT_ONCE, "21"),
    Question("4 steps, thinking", f"{LONG} {ASKED}", STEP_BY_STEP, "21"),
    Question("4 steps, with notes", f"{LONG} {NOTES} {ASKED}", AT_ONCE, "21"),
)
"""What thinking buys, and what it costs; and what is left of the cost where the thinking was done before."""
