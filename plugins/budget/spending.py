"""How a budget reaches a request: effort by the model's own knob, limits, and words for people."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Final

from predawn.plugins.knobs import LIMITS, THINKING_TOKENS, count_of, leaves_open, limit, members_for, put

if TYPE_CHECKING:
    from predawn.plugins import Budget, Exchange, Reply
    from predawn.plugins.budget.capabilities import Capability
    from predawn.plugins.budget.ceilings import Fitted
    from predawn.plugins.budget.seen import Granted, Seen

REFUSALS: Final = frozenset({400, 422})
"""How upstreams refuse a member that they do not know."""
_ABSENT: Final = object()


class Written:
    """What was written into a request, and what stood there before."""

    __slots__ = ("_before", "members")

    def __init__(self, before: Mapping[str, Any], members: Mapping[str, Any]) -> None:
        self._before = before
        self.members = members

    def undo(self, exchange: Exchange) -> None:
        edited = exchange.edit()
        for name, value in self._before.items():
            if value is _ABSENT:
                edited.pop(name, None)
            else:
                edited[name] = value


def write(exchange: Exchange, budget: Budget, capability: Capability) -> Written | None:
    """Ask for the budget's effort where the client leaves that open; `None` if nothing was to be asked for."""
    effort = budget.effort
    request = exchange.request
    if effort is None or not leaves_open(request, exchange.route, capability.knob):
        return None
    members = dict(members_for(capability.knob, effort, max_tokens=_least_limit(request)))
    is_open_ended = exchange.route == "chat" and all(request.get(name) is None for name in LIMITS)
    if is_open_ended and capability.knob == "thinking_budget" and members["thinking"]["type"] == "enabled":
        members["max_tokens"] = 2 * THINKING_TOKENS[effort]
    if exchange.route == "responses":
        members = {"reasoning": {"effort": members["reasoning_effort"]}}
    before = {name: request.get(name, _ABSENT) for name in members}
    put(exchange.edit(), members)
    return Written(before, members)


def _least_limit(request: Mapping[str, Any]) -> int | None:
    return min((count for name in LIMITS if (count := count_of(request.get(name)))), default=None)


def write_limit(exchange: Exchange, tokens: int | None, capability: Capability) -> None:
    """Limit each answer; a limit that the client set lower stays."""
    if tokens is not None:
        limit(exchange.edit(), exchange.route, capability.knob, tokens)


def refused(exchange: Exchange, written: Written, status: int) -> None:
    """The upstream does not take what was written: take it out again, so that budget never breaks a request."""
    written.undo(exchange)
    exchange.decide("budget", "taken out", status=status, members=written.members)


def mark(reply: Reply, exchange: Exchange, granted: Granted) -> None:
    """Tell the client what its request was given."""
    headers = reply.headers
    if not isinstance(headers, MutableMapping):
        return
    budget = granted.budget
    said = [f"tier={granted.choice.tier.name}"]
    if budget.effort is not None:
        said.append(f"effort={budget.effort}")
    if budget.samples > 1:
        said.append(f"samples={budget.samples}")
    if budget.rounds > 1:
        said.append(f"rounds={budget.rounds}")
    if budget.verify:
        said.append("verify")
    headers["x-predawn-budget"] = "; ".join(said)
    if exchange.difficulty is not None:
        headers["x-predawn-difficulty"] = f"{exchange.difficulty.score:.2f}"


def explain(exchange: Exchange, seen: Seen, granted: Granted, fitted: Fitted, policy: str) -> None:
    """Put on the record what was decided, and why."""
    features, difficulty = seen.features, exchange.difficulty
    if features is not None and difficulty is not None:
        views = {name: [round(one.score, 3), round(one.confidence, 3)] for name, one in seen.views.items()}
        exchange.decide(
            "budget",
            "assessed",
            score=round(difficulty.score, 3),
            confidence=round(difficulty.confidence, 3),
            estimator=difficulty.estimator,
            views=views,
            kind=features.kind,
            shape=features.shape,
        )
    choice, price = granted.choice, granted.price
    detail: dict[str, Any] = {"policy": policy, "tier": choice.tier.name, "why": choice.why}
    detail["expected_tokens"] = round(granted.expected)
    if price is not None:
        detail |= {"price": price.now, "target_tokens": price.target, "mean_tokens": round(price.mean, 1)}
    if fitted.why:
        detail["ceiling"] = fitted.why
    exchange.decide("budget", "refused" if fitted.refusal is not None else "allocated", **detail)
