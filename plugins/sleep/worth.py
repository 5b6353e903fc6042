"""Is it worth it? Uses to come x hits x tokens saved x the price ratio, against what sleep costs.

All amounts are in output tokens bought asleep; a prompt token counts `prompt_weight` of one. Nothing here knows a store
or a clock: figures go in, a decision with all of them comes out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from predawn.plugins.sleep.contexts import Policy

Reason: TypeAlias = Literal[
    "policy_always", "policy_off", "too_short", "unpredictable", "pays", "does_not_pay", "expires", "prompted"
]


@dataclass(frozen=True, slots=True)
class Prices:
    """What things cost relative to one output token asleep."""

    ratio: float = 10.0
    """What a token is worth while somebody waits (`t` in arXiv 2504.13171, where it is 10)."""
    prompt_weight: float = 0.2
    """A prompt token's share of an output token; most providers charge a fifth to a quarter."""
    cached_weight: float = 0.02
    """The same for a prompt token from the upstream's prefix cache."""


@dataclass(frozen=True, slots=True)
class WorthRules:
    policy: Policy = "worthwhile"
    prices: Prices = Prices()
    least_tokens: int = 32
    """Shorter contexts never pay under `worthwhile`."""
    least_predictability: float = 0.15
    horizon_s: float = 86_400.0
    """How far ahead uses are expected."""
    prior_uses: float = 10.0
    """What a context that was never used is expected to be used within the horizon: somebody registered it for that."""
    prior_saved_tokens: float = 500.0
    """Saved per hit where nothing has been measured yet."""


@dataclass(frozen=True, slots=True)
class History:
    """What is known of a context's uses."""

    tokens: int
    uses: int
    age_s: float
    """Since its first use or registration."""
    idle_s: float | None = None
    """Since its last use; `None` if it was never used."""
    left_s: float | None = None
    """Until it expires; `None` for never."""
    predictability: float = 0.5
    accepted_share: float = 1.0
    """Accepted notes of all that were checked for this model, prior included."""
    plain_tokens: float | None = None
    """Mean output of answers about it without notes; `None` if there were none."""
    noted_tokens: float | None = None
    """With notes."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What sleep would do."""

    passes: float
    """How many are expected; fewer than are allowed, for most notes converge."""
    drafts: int
    notes_tokens: int
    """Expected size of the notes."""
    checks: bool = True
    questions: int = 0
    answer_tokens: int = 200
    """Expected length of an anticipated answer."""
    warms: bool = True


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to sleep, why, and every figure it rests on; stored and shown as it is."""

    sleeps: bool
    reason: Reason
    policy: Policy
    numbers: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        return {"sleeps": self.sleeps, "reason": self.reason, "policy": self.policy, **self.numbers}


def decide(history: History, plan: Plan, rules: WorthRules, policy: Policy | None = None) -> Decision:
    """Weigh a context. `policy` is the context's own and goes before the rules'."""
    policy = policy or rules.policy
    uses = expected_uses(history, rules)
    saved, measured = saved_tokens(history, rules)
    hit = min(max(history.predictability * history.accepted_share, 0.0), 1.0)
    extra = plan.notes_tokens * rules.prices.cached_weight
    per_use = (hit * saved - extra) * rules.prices.ratio
    cost = cost_tokens(history.tokens, plan, rules.prices)
    gain = uses * per_use
    numbers: dict[str, Any] = {
        "expected_uses": uses,
        "hit_probability": hit,
        "saved_tokens_per_hit": saved,
        "saved_is_measured": measured,
        "notes_cost_per_use": extra,
        "price_ratio": rules.prices.ratio,
        "gain_tokens": gain,
        "cost_tokens": cost,
        "balance_tokens": gain - cost,
        "break_even_uses": cost / per_use if per_use > 0 else None,
        **{f"context_{name}": value for name, value in asdict(history).items()},
        "plan": asdict(plan),
    }
    sleeps, reason = _verdict(history, rules, policy, gain > cost)
    return Decision(sleeps, reason, policy, {name: _rounded(value) for name, value in numbers.items()})


def _verdict(history: History, rules: WorthRules, policy: Policy, pays: bool) -> tuple[bool, Reason]:
    if policy == "off":
        return False, "policy_off"
    if history.left_s is not None and history.left_s <= 0:
        return False, "expires"
    if policy == "always":
        return True, "policy_always"
    if history.tokens < rules.least_tokens:
        return False, "too_short"
    if history.predictability < rules.least_predictability:
        return False, "unpredictable"
    return (True, "pays") if pays else (False, "does_not_pay")


def expected_uses(history: History, rules: WorthRules) -> float:
    """Uses within the horizon, from the rate so far and a prior, less the longer a context has been quiet.

    The rate is a gamma prior's posterior mean. Beyond four mean gaps of quiet, the chance that a context is still in
    use falls as its quiet time grows: the times between what people do have heavy tails, an exponential would give up
    too soon.
    """
    ahead_s = rules.horizon_s if history.left_s is None else min(rules.horizon_s, max(history.left_s, 0.0))
    prior_weight_s = rules.horizon_s * 0.05
    rate = (history.uses + rules.prior_uses * 0.05) / (max(history.age_s, 0.0) + prior_weight_s)
    uses = rate * ahead_s
    if history.uses and history.idle_s is not None:
        gap_s = max(history.age_s / history.uses, 15.0)
        uses *= min(1.0, 4 * gap_s / max(history.idle_s, 1.0))
    return uses


def saved_tokens(history: History, rules: WorthRules) -> tuple[float, bool]:
    """Output tokens saved by a hit, and whether that was measured with this context and model."""
    if history.plain_tokens is not None and history.noted_tokens is not None:
        return max(0.0, history.plain_tokens - history.noted_tokens), True
    if history.plain_tokens is not None:
        return 0.8 * history.plain_tokens, False  # the paper's 5x fewer tokens
    return rules.prior_saved_tokens, False


def cost_tokens(context_tokens: int, plan: Plan, prices: Prices) -> float:
    """What a plan costs when nothing converges early. The prompt is cached after the first call."""
    calls = plan.passes - 1 + plan.drafts + (1 if plan.drafts > 1 else 0)
    written: float = calls * plan.notes_tokens
    read = context_tokens * prices.prompt_weight + max(calls - 1, 0) * context_tokens * prices.cached_weight
    read += max(calls - plan.drafts, 0) * plan.notes_tokens * prices.prompt_weight
    if plan.checks:
        written += plan.notes_tokens // 4
        read += context_tokens * prices.cached_weight + plan.notes_tokens * prices.prompt_weight
    if plan.questions:
        written += plan.questions * (20 + 2 * plan.answer_tokens)
        read += (1 + 2 * plan.questions) * (context_tokens + plan.notes_tokens) * prices.cached_weight
    if plan.warms:
        read += (context_tokens + plan.notes_tokens) * prices.cached_weight
    return written + read


def keeps_warm(rate_per_s: float, interval_s: float, tokens: int, prices: Prices) -> tuple[bool, dict[str, float]]:
    """Whether to prime a prefix cache once more: the chance of a use before it cools, times what it saves awake."""
    chance = -math.expm1(-max(rate_per_s, 0.0) * interval_s)
    gain = chance * tokens * (prices.prompt_weight - prices.cached_weight) * prices.ratio
    cost = tokens * prices.cached_weight + 1
    return gain > cost, {"chance_of_use": chance, "gain_tokens": gain, "cost_tokens": cost}


def _rounded(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) and math.isfinite(value) else value
