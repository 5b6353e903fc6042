"""Outcomes, states and servers for the tests of budget."""

from __future__ import annotations

from typing import Any

from predawn.plugins.budget.curves import Curves
from predawn.plugins.budget.features import NAMES
from predawn.plugins.budget.learning import State
from predawn.plugins.budget.menus import nominal
from predawn.plugins.budget.outcomes import Outcome
from predawn.plugins.budget.settings import STANDARD_TIERS

CONFIG: dict[str, Any] = {
    "models": [
        {"name": "plain", "upstream": "scripted"},
        {"name": "thinker", "upstream": "scripted", "reasoning": "reasoning_effort"},
        {"name": "switch", "upstream": "scripted", "reasoning": "enable_thinking"},
    ]
}
HARD = (
    "Ann has 3 apples. Bob has 4 more than Ann. Cat has twice as many as Bob. Dan has half as many as Cat. Then Eve gets "
    "5 fewer than Dan, and after that each gets 2 more. Prove how many there are altogether, step by step."
)
EASY = "Hello, please translate: good morning"


def state(most: int = 512) -> State:
    return State(Curves(nominal(STANDARD_TIERS)), most)


def outcome(ident: str = "x", **more: Any) -> Outcome:
    given: dict[str, Any] = {
        "exchange_id": ident,
        "tenant": "t",
        "model": "m",
        "kind": "math",
        "shape": "open",
        "values": (1.0,) * len(NAMES),
        "sketch": (1, 2, 3, 4, 5, 6),
        "difficulty": 0.5,
        "tier": "usual",
        "tokens": 100.0,
        "at": 1.0,
    }
    return Outcome(**(given | more))
