"""How much is thought about a question: less where fresh notes hold what would have to be worked out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from predawn.plugins.sleep.predictability import telling_words

if TYPE_CHECKING:
    from predawn.plugins.sleep.recall import Recalled
    from predawn.proxy.exchange import RouteName

Effort: TypeAlias = Literal["unchanged", "none", "minimal", "low"]
FORESEEN = 0.9
"""A question that agrees so well with one that was expected is the same question."""
ASKED_FOR = frozenset({"reasoning_effort", "reasoning", "enable_thinking", "thinking", "thinking_token_budget"})
"""Members by which a client decides itself."""
AT_ONCE: frozenset[Any] = frozenset({"none", "minimal", "auto"})
"""Efforts at which answers are given at once, or may be."""
_SWITCHED_OFF: Mapping[str, Mapping[str, Any]] = {
    "enable_thinking": {"chat_template_kwargs": {"enable_thinking": False}},
    "thinking_budget": {"thinking": {"type": "disabled"}},
    "thinking_token_budget": {"thinking_token_budget": 0},
}


def members_for(knob: str, effort: Effort, *, is_ours: bool = False) -> Mapping[str, Any]:
    """The members of a request that ask for an effort, by `models[].reasoning`; empty where the knob knows no such one.

    Not every model with efforts takes `none`, and one that does not refuses the request: those that are not ours are
    asked for `low` instead, which all know.
    """
    if effort == "unchanged":
        return {}
    if knob == "reasoning_effort":
        return {"reasoning_effort": "low" if effort == "none" and not is_ours else effort}
    return _SWITCHED_OFF.get(knob, {}) if effort == "none" else {}


def lower(edited: dict[str, Any], route: RouteName, members: Mapping[str, Any]) -> bool:
    """Let a request ask for less thought if its client leaves that open; False if there was nothing to change."""
    if not members or _decided(edited):
        return False
    if route == "responses" and "reasoning_effort" in members:
        edited["reasoning"] = {"effort": members["reasoning_effort"]}
    elif route == "chat":
        said = _template(edited)
        edited.update(members)
        if "chat_template_kwargs" in members:
            edited["chat_template_kwargs"] = {**said, **members["chat_template_kwargs"]}
    else:
        return False
    return True


def thinks(request: Mapping[str, Any], members: Mapping[str, Any], *, lowers: bool) -> bool:
    """Whether a request will be thought about step by step, notes or not: its client wants that, or left it open and
    nothing will keep the model from it. False where the model has no knob and nobody can know."""
    if decided := _decided(request):
        return not any(value in AT_ONCE or value is False for value in decided.values())
    return bool(members) and not lowers


def _decided(request: Mapping[str, Any]) -> dict[str, Any]:
    """What the client itself says about thinking."""
    given = {**_template(request), **request}
    return {name: given[name] for name in ASKED_FOR & given.keys() if given[name] is not None}


def _template(request: Mapping[str, Any]) -> dict[str, Any]:
    kept: Any = request.get("chat_template_kwargs")
    return kept if isinstance(kept, dict) else {}


def is_foreseen(question: str, recalled: Recalled) -> bool:
    """Whether notes can be trusted to hold the answer: the question was expected, or they know every name and number
    that sets it apart."""
    telling = telling_words(question)
    return (bool(telling) and telling <= recalled.words) or recalled.guesses.agreement(question) >= FORESEEN
