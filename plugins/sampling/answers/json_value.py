"""`json`: one JSON value; members in any order, numbers by value, strings as they are."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Hashable
from typing import Any, Final

from predawn.proxy.extensions import Extracted

LONGEST: Final = 64_000
"""Characters of JSON that are compared; the worst of them takes 30 ms."""
DEEPEST: Final = 100
_FENCE = re.compile(r"^\s*```(?:json[5c]?)?[ \t]*\n(.*?)\n[ \t]*```\s*$", re.DOTALL | re.IGNORECASE)
_SHOWN = 200


class UnreadableError(ValueError):
    """Text that is not JSON, says a thing twice, or is too large or too deep to be compared."""


class JsonExtractor:
    """The whole answer must be one value, fenced or not."""

    name = "json"

    def extract(self, text: str) -> Extracted | None:
        """The value, its key equal for equal values."""
        if len(text) > LONGEST:
            return None
        fenced = _FENCE.match(text)
        body = (fenced[1] if fenced else text).strip()
        try:
            canonical = canonical_json(body)
        except UnreadableError:
            return None
        return Extracted(("json", digest(canonical)), body if len(body) <= _SHOWN else body[:_SHOWN] + "…")


def canonical_json(text: str) -> str:
    """A text that is equal for equal values. Raises `UnreadableError`."""
    if len(text) > LONGEST or too_deep(text):
        raise UnreadableError("too large or too deep")
    try:
        value = json.loads(
            text, object_pairs_hook=_members, parse_int=_Number, parse_float=_Number, parse_constant=_refused
        )
        return json.dumps(_plain(value), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    except (ValueError, RecursionError) as exc:
        raise UnreadableError(str(exc)) from exc


def digest(canonical: str) -> Hashable:
    """A key of fixed size."""
    return hashlib.sha256(canonical.encode()).digest()


def too_deep(text: str) -> bool:
    """True if brackets are nested deeper than is read; those in strings count too."""
    depth = 0
    for bracket in re.findall(r"[\[\]{}()]", text):
        depth += 1 if bracket in "[{(" else -1
        if depth > DEEPEST:
            return True
    return False


class _Number(str):
    """The digits of a number; never turned into one, since `1e999999999` is a number too."""

    __slots__ = ()


def _plain(value: Any) -> Any:
    if isinstance(value, _Number):
        return "n" + _digits(value)
    if isinstance(value, str):
        return "s" + value
    if isinstance(value, dict):
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_plain(member) for member in value]
    return value


def _digits(number: str) -> str:
    """`12.50`, `1250e-2` and `12.5` in one form: sign, digits, power of ten."""
    mantissa, _, power = number.lower().partition("e")
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, decimals = mantissa.lstrip("-").partition(".")
    if len(power) > 18:
        raise UnreadableError("a power of ten out of all proportion")
    digits = (whole + decimals).lstrip("0")
    shorter = digits.rstrip("0")
    if not shorter:
        return "0"
    return f"{sign}{shorter}e{int(power or 0) - len(decimals) + len(digits) - len(shorter)}"


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise UnreadableError("a member is named twice")
    return members


def _refused(word: str) -> Any:
    raise UnreadableError(f"{word} is not JSON")
