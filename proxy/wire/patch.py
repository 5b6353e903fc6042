"""Change a JSON text only where it differs: every untouched value keeps its own bytes, order and spacing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]', re.DOTALL)
_SPACE = b" \t\r\n"
_KEY = re.compile(rb'[ \t\r\n]*+("(?:[^"\\]++|\\.)*+")[ \t\r\n]*+:[ \t\r\n]*+', re.DOTALL)
_NEXT = re.compile(rb"[ \t\r\n]*+([,}])")
encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder().decode
_raw_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_raw_items = msgspec.json.Decoder(list[msgspec.Raw]).decode


@dataclass(slots=True)
class Member:
    """One member of an object, or one item of an array: where its key and its value stand in the text."""

    key: str
    start: int
    """Offset of the key's quote; of the value for an item of an array."""
    value_start: int
    value_end: int


def members(text: bytes, start: int = 0) -> list[Member]:
    """The members of the object, or items of the array, that begins at `text[start]`; the text must be valid JSON.

    9 µs for an object of 1.6 KB and 24 for one of 45 KB with a hundred tools, against 27 µs and 1.6 ms token by
    token, which is left for arrays and for objects that have a member twice.
    """
    return _members_by_value(text, start) or _members_by_token(text, start)


def _members_by_value(text: bytes, start: int) -> list[Member] | None:
    """From one member to the next, for the decoder knows how long its value is; `None` if that does not work out."""
    try:
        values = _raw_members(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # nested as deep as the stack allows, say
        return None
    found: list[Member] = []
    at = start + 1
    while (key := _KEY.match(text, at)) is not None:
        name = _name(key[1])
        value, begins = bytes(values[name]), key.end()
        ends = begins + len(value)
        following = _NEXT.match(text, ends)
        if following is None or not text.startswith(value, begins):
            return None  # of a member that is there twice the decoder knows one value
        found.append(Member(name, key.start(1), begins, ends))
        if following[1] == b"}":
            return found
        at = following.end()
    return None


def _members_by_token(text: bytes, start: int) -> list[Member]:
    found: list[Member] = []
    is_object = text[start : start + 1] == b"{"
    depth = 0
    key: tuple[int, bytes] | None = None
    value_start = -1
    for token in _TOKEN.finditer(text, start):
        mark = text[token.start()]
        if mark == 0x22:  # a string: the key, if none stands yet at this level
            if depth == 1 and is_object and key is None:
                key = (token.start(), token.group())
            continue
        if mark in b"{[":
            depth += 1
            if depth == 1 and not is_object:
                value_start = token.end()
        elif mark == 0x3A:
            if depth == 1 and is_object and value_start < 0:
                value_start = token.end()
        elif depth == 1:  # a comma, or the end
            _close(text, found, key, value_start, token.start(), is_object=is_object)
            key = None
            value_start = -1 if is_object else token.end()
            if mark in b"}]":
                break
        elif mark in b"}]":
            depth -= 1
    return found


def _close(
    text: bytes, found: list[Member], key: tuple[int, bytes] | None, value_start: int, end: int, *, is_object: bool
) -> None:
    value = text[value_start:end] if value_start >= 0 else b""
    if not value.strip(_SPACE):
        return  # an empty object or array
    first = value_start + len(value) - len(value.lstrip(_SPACE))
    last = value_start + len(value.rstrip(_SPACE))
    if is_object:
        assert key is not None
        found.append(Member(_name(key[1]), key[0], first, last))
    else:
        found.append(Member("", first, first, last))


def splice(text: bytes, put: Mapping[str, bytes], drop: Collection[str] = ()) -> bytes:
    """Set members of the top-level object to the given JSON texts and drop others; the rest stays byte for byte."""
    start = len(text) - len(text.lstrip(_SPACE))
    standing = members(text, start)
    kept = [member for member in standing if member.key not in drop]
    if not standing or not kept:
        inside = b",".join(encode(key) + b":" + value for key, value in put.items())
        return text[:start] + b"{" + inside + b"}"
    if len(kept) < len(standing):
        text, kept = _without(text, standing, drop)
    pieces: list[bytes] = []
    at = 0
    for member in kept:
        if member.key in put:
            pieces += (text[at : member.value_start], put[member.key])
            at = member.value_end
    names = {member.key for member in kept}
    added = b"".join(b"," + encode(key) + b":" + value for key, value in put.items() if key not in names)
    last = kept[-1].value_end
    if added:
        pieces += (text[at:last], added)
        at = last
    return b"".join((*pieces, text[at:]))


def _name(quoted: bytes) -> str:
    try:
        name: str = decode(quoted)
    except UnicodeDecodeError:  # whether that is a name is for the upstream to judge
        name = quoted[1:-1].decode("utf-8", "surrogateescape")
    return name


def append(text: bytes, key: str, value: bytes) -> bytes:
    """What `splice` makes of an object without such a member, in 1 µs where that takes 10."""
    end = len(text.rstrip(_SPACE)) - 1
    inside = text[:end].rstrip(_SPACE)
    if inside.endswith(b"{"):
        return splice(text, {key: value})
    return b"%b,%b:%b%b" % (inside, encode(key), value, text[len(inside) :])


def _without(text: bytes, standing: list[Member], drop: Collection[str]) -> tuple[bytes, list[Member]]:
    """Cut members out together with one of their commas."""
    spans: list[tuple[int, int]] = []
    kept_before = False
    for index, member in enumerate(standing):
        if member.key not in drop:
            kept_before = True
        elif kept_before:
            previous = standing[index - 1]
            spans.append((previous.value_end, member.value_end))
        else:
            spans.append((member.start, standing[index + 1].start))
    pieces: list[bytes] = []
    at = 0
    for begin, end in spans:
        pieces.append(text[at:begin])
        at = end
    text = b"".join((*pieces, text[at:]))
    start = len(text) - len(text.lstrip(_SPACE))
    return text, members(text, start)


def patch(text: bytes, old: Any, new: Any) -> bytes:
    """`text` is the JSON of `old`; return the JSON of `new`, keeping the bytes of all that did not change."""
    old_json = encode(old)
    if old_json == encode(new):
        return text
    stripped = text.strip(_SPACE)
    if isinstance(old, dict) and isinstance(new, dict):
        return _patch_object(stripped, old, new)
    if isinstance(old, list) and isinstance(new, list) and old and new:
        return _patch_array(stripped, old, new)
    return encode(new)


def _patch_object(text: bytes, old: dict[str, Any], new: dict[str, Any]) -> bytes:
    spans = {key: bytes(raw) for key, raw in _raw_members(text).items()}
    put: dict[str, bytes] = {}
    for key, value in new.items():
        if key not in old or key not in spans:
            put[key] = encode(value)
        elif (changed := patch(spans[key], old[key], value)) is not spans[key]:
            put[key] = changed
    return splice(text, put, [key for key in spans if key not in new])


def _patch_array(text: bytes, old: list[Any], new: list[Any]) -> bytes:
    spans = [bytes(raw) for raw in _raw_items(text)]
    same = _same_at_end(old, new) if len(old) != len(new) else 0
    head = new[: len(new) - same]
    upto = len(old) - same
    items = [patch(spans[at], old[at], value) if at < upto else encode(value) for at, value in enumerate(head)]
    return b"[" + b",".join([*items, *spans[upto:]]) + b"]"


def _same_at_end(old: list[Any], new: list[Any]) -> int:
    """How many items at the end stayed as they were, when others were put in or left out before them."""
    count = 0
    for before, after in zip(reversed(old), reversed(new), strict=False):
        if encode(before) != encode(after):
            break
        count += 1
    return count
