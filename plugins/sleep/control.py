"""What one request asks of sleep: `x-predawn-sleep`, `x-predawn-context` and their like in `extra_body["predawn"]`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from predawn.plugins import RequestError
from predawn.plugins.sleep.contexts import SplitRule

_YES: frozenset[Any] = frozenset({True, "true", "on", "yes"})
_NO: frozenset[Any] = frozenset({False, "false", "off", "no"})


@dataclass(frozen=True, slots=True)
class Wish:
    """How a request wants to be treated."""

    sleeps: bool = True
    """False: nothing is put in, and nothing is learnt from it."""
    context: str | None = None
    """The context that it belongs to, by name."""
    live: object = None
    """Which messages change all the time, as in `prefix.first_live`."""
    rule: SplitRule = "off"


def read_wish(control: Mapping[str, Any], standard: Wish) -> Wish:
    """What the request says, or else the settings. Raises `RequestError` for what cannot be meant."""
    if not control.keys() & {"sleep", "context", "live", "split"}:
        return standard
    sleeps = _sleeps(control.get("sleep", standard.sleeps))
    context = control.get("context")
    if isinstance(context, int) and not isinstance(context, bool):
        context = str(context)  # a header is read as JSON
    if context is not None and not isinstance(context, str):
        raise RequestError(400, "context must be the id of a context.", param="predawn.context")
    rule: Any = control.get("split", standard.rule)
    if rule not in get_args(SplitRule):
        message = f"split must be one of {', '.join(get_args(SplitRule))}."
        raise RequestError(400, message, param="predawn.split")
    return Wish(sleeps, context, _live(control.get("live")), rule)


def _sleeps(asked: Any) -> bool:
    word = asked.lower() if isinstance(asked, str) else asked
    if isinstance(word, (str, bool, int)) and word in _YES | _NO:
        return word in _YES
    raise RequestError(400, "sleep must be on or off.", param="predawn.sleep")


def _live(asked: Any) -> object:
    places = asked if isinstance(asked, list) else [asked]
    if asked is not None and not all(type(place) is int for place in places):
        message = "live must be the index of a message or a list of such; negative ones count from the end."
        raise RequestError(400, message, param="predawn.live")
    return asked
