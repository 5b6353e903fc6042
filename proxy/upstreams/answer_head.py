"""Heads of answers; plain ones are read without a parser, and remembered, for many come again."""

from __future__ import annotations

import re
from typing import NamedTuple

from predawn.proxy.upstreams.header_line import ONCE, known, read_line, read_status

MOST_KEPT = 64
"""Heads; beyond that all are forgotten, and those that come again are soon back."""
_KEEP_ALIVE = re.compile(rb"(?:^|[,;\s])timeout\s*=\s*\"?(\d{1,6})", re.IGNORECASE)
"""In `Keep-Alive`, as Node, llama.cpp and others send it."""


class AnswerHead:
    """Status and headers of an answer, as they came; several answers may share one.

    Not frozen: that would cost 0.5 µs a request.
    """

    __slots__ = ("for_client", "headers", "opening", "status")

    def __init__(
        self,
        status: int,
        headers: list[tuple[bytes, bytes]],
        for_client: tuple[list[bytes], int] | None = None,
    ) -> None:
        self.status = status
        self.headers = headers
        self.for_client = for_client
        """What `client_lines.for_client` makes of the headers, if that is known already."""
        self.opening = b""
        """What `opening_of_stream` makes of it, once that was called."""

    def get(self, name: bytes) -> bytes | None:
        """The first header of that name, given in lower case."""
        for key, value in self.headers:
            if len(key) == len(name) and key.lower() == name:
                return value
        return None

    @property
    def is_events(self) -> bool:
        """True if the body is a stream of server-sent events."""
        return (self.get(b"content-type") or b"").startswith(b"text/event-stream")

    @property
    def kept_s(self) -> int | None:
        """Seconds after which the upstream closes a connection that is not used, if it says so."""
        told = _KEEP_ALIVE.search(self.get(b"keep-alive") or b"")
        return int(told[1]) if told is not None else None

    def __repr__(self) -> str:
        return f"<AnswerHead {self.status} {len(self.headers)} headers>"


class PlainHead(NamedTuple):
    """A head that there is but one way to read."""

    head: AnswerHead
    says: int
    """What its lines say, by the bits of `client_lines` and `header_line`."""
    length: int
    """Of the body; 0 if it is not told."""
    new: int
    """Lines that had not come before."""


kept: dict[bytes, PlainHead] = {}
"""Heads of chunked bodies by how they came, without the blank line. To look here first is for the caller.

An engine that names neither request nor time, or the second at most, sends the same head again and again: 26 µs to read
it line by line became 13 where the caches are cold. One with a line of its own never comes in here.
"""


def read_head(block: bytes) -> PlainHead | None:
    """What a head says that is not kept; `None` if the parser must judge. It ends before its blank line."""
    lines = block.split(b"\r\n")
    status = read_status(lines.pop(0))
    if not status:
        return None
    headers, shown = [], []
    says = length = new = 0
    for line in lines:
        read = known.get(line)
        if read is None:
            new += 1
            read = read_line(line)
            if read is None:
                return None
        header, seen, said, size = read
        headers.append(header)
        shown.append(seen)
        if said:
            if says & said & ONCE:
                return None
            says |= said
            length += size
    plain = PlainHead(AnswerHead(status, headers, (shown, says)), says, length, new)
    if not new and not length:  # lengths come again, but seldom the same head: they would drive out what does
        if len(kept) >= MOST_KEPT:
            kept.clear()
        kept[block] = plain
    return plain
