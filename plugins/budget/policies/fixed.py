"""`fixed`: one tier for everybody; what adaptive spending is to be compared with."""

from __future__ import annotations

from predawn.plugins.budget.policies.protocol import Case, Choice


class Fixed:
    """The tier of this name, or where the model cannot tell it from another, that one."""

    name: str = "fixed"

    def __init__(self, tier: str) -> None:
        self._tier = tier

    def choose(self, case: Case) -> Choice:
        found = next((tier for tier in case.tiers if tier.name == self._tier), case.tiers[-1])
        return Choice(found, case.state.curves.cost(case.kind, found.name, case.difficulty), "fixed")
