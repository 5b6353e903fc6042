"""Heads of answers; plain ones are read without a parser, and remembered, for many come again."""

from __future__ import annotations

import re
from typing import NamedTuple, TypeVar

from predawn.proxy.upstreams.header_line import ONCE, known, read_line, read_status

MOST_KEPT = 64
"""Heads; beyond that all are forgotten, and those that come again are soon back."""
_KEEP_ALIVE = re.compile(rb"(?:^|[,;\s])timeout\s*=\s*\"?(\d{1,6})", re.IGNORECASE)
"""In `Keep-Alive`, as Node, llama.cpp and others send it."""
_ID = re.compile(rb"\r\n(x-request-id): ?([!-~]++)(?=\r\n|\Z)", re.IGNORECASE)
"""A line that is read in but one way."""
K = TypeVar("K")
V = TypeVar("V")


class AnswerHead:
    """Status and headers of an answer, as they came; several answers may share one.

    Not frozen: that would cost 0.5 µs a request.
    """

    __slots__ = ("for_client", "headers", "opening", "shape", "status")

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
        self.shape: Shape | None = None
        """What it has in common with others, but for the line that names the request."""

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
it line by line became 13 where the caches are cold. One with a line of its own never comes in here; if that is the id,
`shapes` have the rest.
"""


class Shape:
    """A head but for the line with an id of its own; most providers send one."""

    __slots__ = ("at", "headers", "lines", "opening", "plain")

    def __init__(self, plain: PlainHead, at: int) -> None:
        self.plain = plain
        self.at = at
        """Which of its headers the id is."""
        head = plain.head
        assert head.for_client is not None
        self.headers = head.headers[:at], head.headers[at + 1 :]
        lines, _ = head.for_client
        self.lines = lines[:at], lines[at + 1 :]
        self.opening: tuple[bytes, bytes] | None = None
        """On both sides of the id, what `opening_of_stream` makes of it, once that was called."""

    def with_id(self, name: bytes, value: bytes) -> PlainHead:
        """The head that has this id."""
        _, says, length, _ = self.plain
        status = self.plain.head.status
        headers, lines = self.headers, self.lines
        own = b"x-upstream-request-id: %b\r\n" % value
        head = AnswerHead(status, [*headers[0], (name, value), *headers[1]], ([*lines[0], own, *lines[1]], says))
        head.shape = self
        return PlainHead(head, says, length, 0)


shapes: dict[tuple[bytes, bytes], Shape] = {}
"""Of heads of chunked bodies, by what stands on both sides of the id."""


def read_head(block: bytes) -> PlainHead | None:
    """What a head says that is not kept; `None` if the parser must judge. It ends before its blank line."""
    own = _ID.search(block)
    if own is None:
        plain = _read_lines(block)
        if plain is not None and not plain.new and not plain.length:
            # lengths come again, but seldom the same head: they would drive out what does
            _keep(kept, block, plain)
        return plain
    around = block[: own.start()], block[own.end() :]
    shape = shapes.get(around)
    if shape is not None:
        return shape.with_id(own[1], own[2])
    plain = _read_lines(block)
    if plain is not None and plain.new < 2 and not plain.length:
        _keep(shapes, around, Shape(plain, block.count(b"\r\n", 0, own.start())))
    return plain


def _keep(store: dict[K, V], key: K, value: V) -> None:
    if len(store) >= MOST_KEPT:
        store.clear()
    store[key] = value


def _read_lines(block: bytes) -> PlainHead | None:
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
    return PlainHead(AnswerHead(status, headers, (shown, says)), says, length, new)
