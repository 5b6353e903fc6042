"""The head of an answer on its way to the client, as bytes."""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING

from aiohttp.helpers import rfc822_formatted_time

from predawn.proxy.answer import REASONS
from predawn.proxy.relay import STREAM_HEADERS

if TYPE_CHECKING:
    from collections.abc import Iterable

_STREAM_LINES = "".join(f"{name}: {value}\r\n" for name, value in STREAM_HEADERS.items()).encode()
_OVERRIDDEN = tuple(f"{name.lower()}:".encode() for name in STREAM_HEADERS)
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


def for_stream(lines: Iterable[bytes]) -> bytes:
    """The lines of a stream, with our own where both would say how it is to be read."""
    return b"".join([line for line in lines if not line.lower().startswith(_OVERRIDDEN)]) + _STREAM_LINES
