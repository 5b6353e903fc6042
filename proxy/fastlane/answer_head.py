"""The head of an answer on its way to the client: what `wire.headers.to_client` lets through, as bytes."""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING

from aiohttp.helpers import rfc822_formatted_time

from predawn.proxy.answer import REASONS
from predawn.proxy.relay import STREAM_HEADERS
from predawn.proxy.wire.headers import NOT_DOWNSTREAM

if TYPE_CHECKING:
    from collections.abc import Sequence

_STREAM_LINES = "".join(f"{name}: {value}\r\n" for name, value in STREAM_HEADERS.items()).encode()
_OVERRIDDEN = tuple(f"{name.lower()}:".encode() for name in STREAM_HEADERS)
_PASSES, _STAYS, _TYPE, _IDENT, _TIME, _CONNECTION, _ENCODING = range(7)
_KINDS: dict[bytes, int] = {name.encode(): _STAYS for name in (*NOT_DOWNSTREAM, "x-predawn-upstream")} | {
    b"content-type": _TYPE,
    b"x-request-id": _IDENT,
    b"openai-processing-ms": _TIME,
    b"connection": _CONNECTION,
    b"content-encoding": _ENCODING,
}
_USUAL_CONNECTIONS = frozenset({b"keep-alive", b"close"})
_STATUS_LINES = {status: f"HTTP/1.1 {status} {reason}\r\n".encode() for status, reason in REASONS.items()}


def status_line(status: int) -> bytes:
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


class Dates:
    """The value of `Date`, made once a second."""

    __slots__ = ("_line", "_second")

    def __init__(self) -> None:
        self._second = -1
        self._line = b""

    def line(self) -> bytes:
        second = int(time())
        if second != self._second:
            self._second = second
            self._line = b"Date: " + rfc822_formatted_time().encode() + b"\r\n"
        return self._line


class AnswerLines:
    """An upstream's header lines that a client may see, and what the relay must know of all of them."""

    __slots__ = ("is_events", "is_unusual", "lines", "told_ms")

    def __init__(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.is_events = False
        self.is_unusual = False
        """True where the full lane must look: headers named by `Connection`, a compressed body, two types."""
        self.told_ms = False
        lines = []
        has_type = False
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
                self.is_unusual = self.is_unusual or value.lower() not in _USUAL_CONNECTIONS
                continue
            if kind == _ENCODING:
                self.is_unusual = self.is_unusual or value.lower() != b"identity"
                continue
            if kind == _TYPE:
                self.is_unusual = self.is_unusual or has_type
                has_type = True
                self.is_events = value.startswith(b"text/event-stream")
            elif kind == _TIME:
                self.told_ms = True
            lines.append(b"%b: %b\r\n" % (name, value))
        self.lines = lines

    def for_stream(self) -> bytes:
        """The lines of a stream, with our own where both would say how it is to be read."""
        kept = [line for line in self.lines if not line.lower().startswith(_OVERRIDDEN)]
        return b"".join(kept) + _STREAM_LINES
