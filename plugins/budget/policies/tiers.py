"""`tiers`: by difficulty, as the table in the settings says."""

from __future__ import annotations

from predawn.plugins.budget.policies.protocol import Case, Choice


class Tiers:
    """The first tier whose `below` the difficulty does not reach."""

    name: str = "tiers"

    def choose(self, case: Case) -> Choice:
        at = next((at for at, tier in enumerate(case.tiers) if case.difficulty < tier.below), len(case.tiers) - 1)
        tier = case.tiers[at]
        why = f"difficulty {case.difficulty:.2f}"
        return Choice(tier, case.state.curves.cost(case.kind, tier.name, case.difficulty), why)
