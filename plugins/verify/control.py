"""What one request asks of verification: `x-predawn-verify`, or `verify` in `extra_body["predawn"]`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from predawn.plugins import RequestError
from predawn.plugins.verify.settings import Mode, Policy
from predawn.proxy.problems import unknown

if TYPE_CHECKING:
    from collections.abc import Collection

PARAM = "predawn.verify"
_YES: frozenset[Any] = frozenset({True, "true", "on", "yes"})
_NO: frozenset[Any] = frozenset({False, "false", "off", "no"})
_KEYS = ("mode", "verifiers", "corrections", "retries", "then")


@dataclass(frozen=True, slots=True)
class Wish:
    """How a request wants to be verified; `None` leaves it to the settings."""

    verifies: bool | None = None
    mode: Mode | None = None
    verifiers: tuple[str, ...] | None = None
    corrections: int | None = None
    retries: int | None = None
    then: Policy | None = None


NO_WISH = Wish()


def read_wish(control: Mapping[str, Any], known: Collection[str]) -> Wish:
    """What the request says. Raises `RequestError` for what cannot be meant.

    `verify` is true, false, the name of a mode, or an object with `mode`, `verifiers` (names), `corrections`, `retries`
    and `then`.
    """
    asked = control.get("verify")
    if asked is None:
        return NO_WISH
    if isinstance(asked, dict):
        return _read(asked, known)
    word = asked.lower() if isinstance(asked, str) else asked
    if isinstance(word, (str, bool)):
        if word in _YES | _NO:
            return Wish(word in _YES)
        if word in get_args(Mode):
            return Wish(True, mode=_mode(word))
    raise RequestError(400, "verify must be true, false, a mode or an object.", param=PARAM)


def _read(asked: Mapping[str, Any], known: Collection[str]) -> Wish:
    for name in asked:
        if name not in _KEYS:
            raise RequestError(400, f"{unknown('member', str(name)[:100], _KEYS)}.", param=PARAM)
    names = asked.get("verifiers")
    if isinstance(names, str):
        names = [names]
    if names is not None:
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise RequestError(400, "verifiers must be a list of names.", param=f"{PARAM}.verifiers")
        for name in names:
            if name not in known:
                message = f"{unknown('verifier', name[:100], known)}."
                raise RequestError(400, message, param=f"{PARAM}.verifiers")
    return Wish(
        True,
        _mode(asked.get("mode")),
        tuple(dict.fromkeys(names)) if names is not None else None,
        _count(asked, "corrections"),
        _count(asked, "retries"),
        _policy(asked.get("then")),
    )


def _mode(asked: Any) -> Mode | None:
    if asked is not None and asked not in get_args(Mode):
        raise RequestError(400, f"mode must be one of {', '.join(get_args(Mode))}.", param=f"{PARAM}.mode")
    mode: Mode | None = asked
    return mode


def _policy(asked: Any) -> Policy | None:
    if asked is not None and asked not in get_args(Policy):
        raise RequestError(400, f"then must be one of {', '.join(get_args(Policy))}.", param=f"{PARAM}.then")
    policy: Policy | None = asked
    return policy


def _count(asked: Mapping[str, Any], name: str) -> int | None:
    value = asked.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise RequestError(400, f"{name} must be a number, 0 or more.", param=f"{PARAM}.{name}")
    return value
