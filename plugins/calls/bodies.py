"""The bodies of side calls: the client's own bytes, with only the members set anew that must differ."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from predawn.proxy.wire.patch import patch, splice

if TYPE_CHECKING:
    from predawn.plugins import Exchange

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
KEPT = "calls.bodies"
"""Key of `exchange.state`: what has been cut out of the body before, so that 64 samples read a long one once."""


def side_body(
    exchange: Exchange, changes: Mapping[str, Any] | None, without: Collection[str], *, stream: bool
) -> bytes:
    """What a side call of `exchange` sends: its request as it stands now, changed."""
    put: dict[str, Any] = dict(changes or {})
    drop = {*without, "predawn"}
    if stream:
        head = exchange.head
        if head is None or exchange.edited or head.stream is not True:  # else it says so itself
            put["stream"] = True
        if exchange.route in ("chat", "completions") and not _asks_for_usage(exchange):
            put["stream_options"] = {**_stream_options(exchange), "include_usage": True}
    else:
        drop |= {"stream", "stream_options"}
    return _joined(_without(exchange, frozenset({*drop, *put})), put)


def _asks_for_usage(exchange: Exchange) -> bool:
    """Whether the client's own bytes ask for the usage already."""
    if exchange.edited or exchange.head is None:
        return False
    options = exchange.head.stream_options
    return options is not None and options.include_usage is True


def _stream_options(exchange: Exchange) -> Mapping[str, Any]:
    if b"stream_options" not in exchange.body and not exchange.edited:
        return {}
    given = exchange.request.get("stream_options")
    return given if isinstance(given, dict) else {}


def _without(exchange: Exchange, names: frozenset[str]) -> bytes:
    """The request's bytes without these members."""
    body = exchange.body
    if not exchange.edited and b"\\u" not in body and not any(name.encode() in body for name in names):
        return body  # to take it apart costs 100 µs for each 2 KB
    now = _encode(exchange.decoded()) if exchange.edited else b""
    kept: dict[Any, bytes] = exchange.state.setdefault(KEPT, {})
    if kept.get("now") != now:
        kept.clear()
        kept["now"] = now
        kept["all"] = patch(body, _decode(body), exchange.decoded()) if exchange.edited else body
    found = kept.get(names)
    if found is None:
        found = kept[names] = splice(kept["all"], {}, names)
    return found


def _joined(text: bytes, put: Mapping[str, Any]) -> bytes:
    """An object with these members more, which it must not have."""
    if not put:
        return text
    inside = text.rstrip()[:-1].rstrip()
    members = b",".join(_encode(name) + b":" + _encode(value) for name, value in put.items())
    return inside + (b"" if inside.endswith(b"{") else b",") + members + b"}"
