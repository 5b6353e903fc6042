"""An upstream's header lines as a client may see them: what `headers.to_client` lets through, as bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predawn.proxy.wire.headers import NOT_DOWNSTREAM

if TYPE_CHECKING:
    from collections.abc import Iterable

HAS_TYPE, IS_EVENTS, IS_UNUSUAL, TOLD_MS = 1, 2, 4, 8
"""What the relay must know of the lines. Unusual, so that the full lane must look, are headers named by `Connection`, a
compressed body, two types."""
_PASSES, _STAYS, _TYPE, _IDENT, _TIME, _CONNECTION, _ENCODING = range(7)
_KINDS: dict[bytes, int] = {name.encode(): _STAYS for name in (*NOT_DOWNSTREAM, "x-predawn-upstream")} | {
    b"content-type": _TYPE,
    b"x-request-id": _IDENT,
    b"openai-processing-ms": _TIME,
    b"connection": _CONNECTION,
    b"content-encoding": _ENCODING,
}
NOT_MERELY_PASSED = frozenset(_KINDS)
"""Names, in lower case, of headers that do not just travel on as they are."""
_USUAL_CONNECTIONS = frozenset({b"keep-alive", b"close"})


def for_client(headers: Iterable[tuple[bytes, bytes]]) -> tuple[list[bytes], int]:
    """The lines that travel on, and what all of them say."""
    lines = []
    says = 0
    for name, value in headers:
        kind = _KINDS.get(name)
        if kind is None:  # in lower case already is how most servers write them
            kind = _KINDS.get(name.lower(), _PASSES)
        if kind == _STAYS:
            continue
        if kind == _IDENT:
            lines.append(b"x-upstream-request-id: %b\r\n" % value)
            continue
        if kind == _CONNECTION:
            if value.lower() not in _USUAL_CONNECTIONS:
                says |= IS_UNUSUAL
            continue
        if kind == _ENCODING:
            if value.lower() != b"identity":
                says |= IS_UNUSUAL
            continue
        if kind == _TYPE:
            if says & HAS_TYPE:
                says = (says | IS_UNUSUAL) & ~IS_EVENTS
            says |= HAS_TYPE
            if value.startswith(b"text/event-stream"):
                says |= IS_EVENTS
        elif kind == _TIME:
            says |= TOLD_MS
        lines.append(b"%b: %b\r\n" % (name, value))
    return lines, says
