"""The head of an answer on its way to the client, as bytes."""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING

from aiohttp.helpers import rfc822_formatted_time

from predawn.proxy.answer import REASONS
from predawn.proxy.relay import STREAM_HEADERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from predawn.proxy.upstreams.answer_head import AnswerHead

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


def opening_of_stream(head: AnswerHead, lines: Sequence[bytes]) -> bytes:
    """Status line and lines of a stream, with our own where both would say how it is to be read.

    Kept with the head, or with its shape, for both may come again.
    """
    if (shape := head.shape) is None:
        opening = head.opening = b"%b%b%b" % (status_line(head.status), _passed(lines), _STREAM_LINES)
        return opening
    at = shape.ident_at
    if shape.opening is None:
        before = lines if at is None else lines[:at]
        after = () if at is None else lines[at + 1 :]
        shape.opening = status_line(head.status) + _passed(before), _passed(after) + _STREAM_LINES
    return b"%b%b%b" % (shape.opening[0], b"" if at is None else lines[at], shape.opening[1])


def _passed(lines: Iterable[bytes]) -> bytes:
    return b"".join([line for line in lines if not line.lower().startswith(_OVERRIDDEN)])
