"""How effort reaches a model: one table from an effort to the members of a request, knob by knob.

The knob of an alias is `models[].reasoning` of the settings. For all plugins that have a say in how much is thought.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, get_args

from predawn.proxy.exchange import Effort, RouteName

EFFORTS: Final[tuple[Effort, ...]] = get_args(Effort)
"""From the least to the most."""
THINKING_TOKENS: Final[Mapping[Effort, int]] = {
    "none": 0,
    "minimal": 1024,
    "low": 2048,
    "medium": 8192,
    "high": 16_384,
    "max": 32_768,
}
"""What an effort means where the knob is a number of tokens; Anthropic takes no fewer than 1,024."""
ASKED_FOR: Final = frozenset(
    (
        *("reasoning_effort", "reasoning", "enable_thinking", "thinking", "thinking_token_budget", "output_config"),
        *("thinking_budget", "reasoning_budget"),
    )
)
"""Members by which a client decides itself."""
_IN_TEMPLATE: Final = ("enable_thinking", "thinking", "thinking_budget", "reasoning_effort")
"""The same in `chat_template_kwargs`."""
_TEMPLATE: Final = "chat_template_kwargs"
_NOT_BESIDE_THINKING: Final = ("temperature", "top_p", "top_k")
"""Members beside which Anthropic's models do not think."""
LIMITS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict")
"""Members that limit an answer; `n_predict` is llama.cpp's own, and goes before the others there."""
MOST: Final = 1 << 40
ANSWER_ROOM: Final = 1024
"""Tokens that must remain for the answer beside a thinking budget."""


def knows(knob: str) -> tuple[Effort, ...]:
    """The efforts that a knob tells apart."""
    if knob == "none":
        return ()
    if knob == "reasoning_effort":
        return EFFORTS[:-1]
    return ("none", "medium") if knob == "enable_thinking" else EFFORTS


def nearest(effort: Effort, accepted: Collection[Effort]) -> Effort | None:
    """The accepted effort next to this one, the lesser one first; `None` if none is accepted."""
    if effort in accepted:
        return effort
    at = EFFORTS.index(effort)
    return min(
        (one for one in EFFORTS if one in accepted),
        key=lambda one: (abs(EFFORTS.index(one) - at), EFFORTS.index(one)),
        default=None,
    )


def members_for(knob: str, effort: Effort, *, max_tokens: int | None = None) -> Mapping[str, Any]:
    """The members of a chat request that ask for an effort; empty where the knob cannot say it.

    `max_tokens` is the limit of the whole answer, which a thinking budget has to leave room in.
    """
    if knob == "reasoning_effort":
        return {"reasoning_effort": "high" if effort == "max" else effort}
    if knob == "enable_thinking":
        return {_TEMPLATE: {"enable_thinking": effort != "none"}}
    if knob not in {"thinking_budget", "thinking_token_budget"}:
        return {}
    tokens = THINKING_TOKENS[effort]
    if max_tokens is not None:
        tokens = min(tokens, max(max_tokens - ANSWER_ROOM, 0))
    if knob == "thinking_token_budget":
        return {"thinking_token_budget": tokens}
    if tokens < THINKING_TOKENS["minimal"]:
        return {"thinking": {"type": "disabled"}}
    return {"thinking": {"type": "enabled", "budget_tokens": tokens}}


def said(request: Mapping[str, Any]) -> dict[str, Any]:
    """What the client, or a plugin before, says itself of how much is to be thought; empty if that is left open."""
    told = {name: value for name in ASKED_FOR & request.keys() if (value := request[name]) is not None}
    template: Any = request.get(_TEMPLATE)
    if isinstance(template, dict):
        told |= {name: value for name in _IN_TEMPLATE if (value := template.get(name)) is not None}
    return told


def leaves_open(request: Mapping[str, Any], route: RouteName, knob: str) -> bool:
    """True if a request may be given an effort: its route has words for it, its client has not decided, and nothing
    in it makes an upstream refuse the words."""
    if route != "chat" and (route, knob) not in _WORDED:
        return False
    if said(request):
        return False
    return knob != "thinking_budget" or not (
        any(request.get(name) is not None for name in _NOT_BESIDE_THINKING) or _forces_a_tool(request)
    )


_WORDED: Final = frozenset({("responses", "reasoning_effort"), ("messages", "thinking_budget")})


def _forces_a_tool(request: Mapping[str, Any]) -> bool:
    choice: Any = request.get("tool_choice")
    kind: Any = choice.get("type") if isinstance(choice, dict) else choice
    return kind not in (None, "auto", "none")


def put(edited: dict[str, Any], members: Mapping[str, Any]) -> None:
    """Write members into a request; what the client says to the template otherwise stays."""
    for name, value in members.items():
        said = edited.get(name)
        edited[name] = {**said, **value} if name == _TEMPLATE and isinstance(said, dict) else value


def limit(edited: dict[str, Any], route: RouteName, knob: str, tokens: int) -> None:
    """Let an answer have at most so many tokens; a lower limit of the client stays.

    Each limit that stands is lowered, since upstreams differ in which they heed; none is put beside one that stands,
    since some refuse two.
    """
    names = ("max_output_tokens",) if route == "responses" else LIMITS
    standing = [name for name in names if edited.get(name) is not None]
    for name in standing:
        if not _is_lower(edited[name], tokens):
            edited[name] = tokens
    if not standing:
        is_new = knob == "reasoning_effort" and route == "chat"
        edited["max_completion_tokens" if is_new else names[0]] = tokens


def count_of(value: Any) -> int:
    """A count as lenient upstreams read it, text included; 0 for what is none."""
    number = _number(value)
    return int(min(number, MOST)) if number is not None and number >= 1 else 0


def client_limit(request: Mapping[str, Any]) -> int | None:
    """Most tokens of an answer, by the highest limit that a request names."""
    return max(count_of(request.get(name)) for name in LIMITS) or None


def choices_of(request: Mapping[str, Any]) -> int:
    """Answers that the client itself asks for; with `best_of` some of them are thrown away upstream."""
    prompt: Any = request.get("prompt")
    prompts = len(prompt) if isinstance(prompt, list) and prompt and isinstance(prompt[0], (str, list)) else 1
    return prompts * max(count_of(request.get("n")), count_of(request.get("best_of")), 1)


def _number(value: Any) -> float | None:
    if isinstance(value, str) and len(value) <= 32:
        try:
            return float(value)
        except ValueError:
            return None
    return value if isinstance(value, (int, float)) else None


def _is_lower(value: Any, tokens: int) -> bool:
    """Whether a limit that stands is no higher. Some upstreams read -1 as none; what is no number is for them."""
    number = _number(value)
    return number is None or 0 <= number <= tokens
