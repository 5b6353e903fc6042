"""From a difficulty to a tier: three policies, pure functions of what is known."""

from __future__ import annotations

from predawn.plugins.budget.policies.protocol import Case, Choice, Policy

__all__ = ["Case", "Choice", "Policy"]
