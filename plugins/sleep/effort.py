"""How much is thought about a question: less where fresh notes hold what would have to be worked out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from predawn.plugins import knobs
from predawn.plugins.sleep.predictability import telling_words

if TYPE_CHECKING:
    from predawn.plugins.sleep.recall import Recalled
    from predawn.proxy.exchange import RouteName

Effort: TypeAlias = Literal["unchanged", "none", "minimal", "low"]
FORESEEN = 0.9
"""A question that agrees so well with one that was expected is the same question."""
AT_ONCE = ("none", "minimal", "auto", "disabled", 0)
"""What clients say for answers that are given at once, or may be; `False` is 0 too."""


def members_for(knob: str, effort: Effort, *, is_ours: bool = False) -> Mapping[str, Any]:
    """The members of a request that ask for an effort, by `models[].reasoning`; empty where the knob knows no such one.

    Not every model with efforts takes `none`, and one that does not refuses the request: those that are not ours are
    asked for `low` instead, which all know.
    """
    if effort == "unchanged":
        return {}
    if knob == "reasoning_effort":
        return knobs.members_for(knob, "low" if effort == "none" and not is_ours else effort)
    return knobs.members_for(knob, "none") if effort == "none" else {}


def lower(edited: dict[str, Any], route: RouteName, members: Mapping[str, Any]) -> bool:
    """Let a request ask for less thought if its client leaves that open; False if there was nothing to change."""
    if not members or knobs.said(edited):
        return False
    if route == "responses" and "reasoning_effort" in members:
        edited["reasoning"] = {"effort": members["reasoning_effort"]}
    elif route == "chat":
        knobs.put(edited, members)
    else:
        return False
    return True


def thinks(request: Mapping[str, Any], members: Mapping[str, Any], *, lowers: bool) -> bool:
    """Whether a request will be thought about step by step, notes or not: its client wants that, or left it open and
    nothing will keep the model from it. False where the model has no knob and nobody can know."""
    if told := knobs.said(request):
        return not any(_is_at_once(value) for value in told.values())
    return bool(members) and not lowers


def _is_at_once(value: Any) -> bool:
    if isinstance(value, dict):  # `reasoning`, `thinking`, `output_config`
        return any(value.get(name) in AT_ONCE for name in ("type", "effort", "budget_tokens", "max_tokens"))
    return value in AT_ONCE


def is_foreseen(question: str, recalled: Recalled) -> bool:
    """Whether notes can be trusted to hold the answer: the question was expected, or they know every name and number
    that sets it apart."""
    telling = telling_words(question)
    return (bool(telling) and telling <= recalled.words) or recalled.guesses.agreement(question) >= FORESEEN
