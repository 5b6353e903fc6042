"""Heads of answers; plain ones are read without a parser, and remembered, for many come again."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from predawn.proxy.upstreams.header_line import LENGTH, ONCE, OWN, known, read_line, read_status

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_KEPT = 64
"""Heads, and shapes of heads; beyond that all are forgotten, and those that come again are soon back."""
_KEEP_ALIVE = re.compile(rb"(?:^|[,;\s])timeout\s*=\s*\"?(\d{1,6})", re.IGNORECASE)
"""In `Keep-Alive`, as Node, llama.cpp and others send it."""
WORTH_A_PATTERN = 16
"""Answers of one shape, after which it gets a pattern, which takes 0.6 ms to compile for a head of half a KB. Lines
that come again, but seldom together, would make many shapes that hardly come again."""
_VALUE = rb"[!-~](?:[ -~]*[!-~])?+"
_OWN = re.compile(rb"\r\n(%b): ?(%b)(?=\r\n|\Z)" % (b"|".join(OWN), _VALUE), re.IGNORECASE)
"""Lines of an answer's own that are read in but one way."""
K = TypeVar("K")
V = TypeVar("V")


class AnswerHead:
    """Status and headers of an answer, as they came; several answers may share one.

    Not frozen: that would cost 0.5 µs a request.
    """

    __slots__ = ("_headers", "_own", "for_client", "opening", "shape", "status")

    def __init__(
        self,
        status: int,
        headers: list[tuple[bytes, bytes]] | None,
        for_client: tuple[list[bytes], int] | None = None,
        shape: Shape | None = None,
        own: tuple[bytes, ...] = (),
    ) -> None:
        """Of a shape, there are no headers until they are asked for: hardly any relay does."""
        self.status = status
        self._headers = headers
        self.for_client = for_client
        """What `client_lines.for_client` makes of the headers, if that is known already."""
        self.opening = b""
        """What `opening_of_stream` makes of it, once that was called."""
        self.shape = shape
        """What it has in common with others, but for the lines of its own."""
        self._own = own

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        if self._headers is None:
            assert self.shape is not None
            self._headers = self.shape.headers_with(self._own)
        return self._headers

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


PlainHead: TypeAlias = "tuple[AnswerHead, int, int, int]"
"""A head that there is but one way to read, what its lines say (by the bits of `client_lines` and `header_line`), the
body's length or 0 if it is not told, and how many of its lines, but for its own, had not come before.

Without names, which cost 0.3 µs an answer.
"""

kept: dict[bytes, PlainHead] = {}
"""Heads with no line of their own by how they came, without the blank line. To look here first is for the caller.

An engine that names neither request nor time begins every stream with the same head: 26 µs to read it line by line
became 13 where the caches are cold. Of heads with lines of their own `shapes` have the rest.
"""


class Shape:
    """A head but for its own lines: the date, the length, and the id that most providers send, each at most once.

    With it an answer takes 2.2 µs; line by line it took 4.7, and the parser takes 3.2.
    """

    __slots__ = (
        "_at",
        "_headers",
        "_ident",
        "_length",
        "_lines",
        "_names",
        "_read",
        "_rest",
        "_says",
        "_status",
        "_uses",
        "ident_at",
        "opening",
    )

    def __init__(self, plain: PlainHead, around: tuple[bytes, ...]) -> None:
        """Of a head, and the names of its own lines with what stands around them."""
        head, self._says, _, _ = plain
        assert head.for_client is not None
        self._status = head.status
        self._headers = head.headers
        self._lines, _ = head.for_client
        self._rest, self._names = around[::2], around[1::2]
        lower = [name.lower() for name in self._names]
        self._length = lower.index(b"content-length") if b"content-length" in lower else None
        self._ident = lower.index(b"x-request-id") if b"x-request-id" in lower else None
        self._uses = 0
        self._read: Callable[[bytes], re.Match[bytes] | None] | None = None
        lines = itertools.accumulate(part.count(b"\r\n") for part in self._rest)
        self._at = [number + before for number, before in zip(range(len(lower)), lines, strict=False)]
        """Which of its headers are its own."""
        self.ident_at = self._at[self._ident] if self._ident is not None else None
        """Which of the lines for the client is the id; neither of the other two is shown."""
        self.opening: tuple[bytes, bytes] | None = None
        """What `opening_of_stream` makes of it, before the id and behind it, once that was called."""

    def read(self, block: bytes) -> PlainHead | None:
        """What a head of this shape says; `None` if it is of another, or there is no pattern yet."""
        found = self._read(block) if self._read is not None else None
        return self._with(found.groups()) if found is not None else None

    def with_own(self, own: tuple[bytes, ...]) -> PlainHead | None:
        """What it says with these values of its own; `None` if the parser must judge."""
        if self._length is not None and LENGTH.fullmatch(own[self._length]) is None:
            return None
        self._uses += 1
        if self._uses == WORTH_A_PATTERN:
            self._read = re.compile(self._pattern()).fullmatch
        return self._with(own)

    def _pattern(self) -> bytes:
        pattern = re.escape(self._rest[0])
        for number, (name, rest) in enumerate(zip(self._names, self._rest[1:], strict=True)):
            value = LENGTH.pattern if number == self._length else _VALUE
            pattern += rb"\r\n%b: ?(%b)%b" % (re.escape(name), value, re.escape(rest))
        return pattern

    def _with(self, own: tuple[bytes, ...]) -> PlainHead:
        lines = self._lines
        if self._ident is not None and self.ident_at is not None:
            lines = lines.copy()
            lines[self.ident_at] = b"x-upstream-request-id: %b\r\n" % own[self._ident]
        length = int(own[self._length]) if self._length is not None else 0
        return AnswerHead(self._status, None, (lines, self._says), self, own), self._says, length, 0

    def headers_with(self, own: tuple[bytes, ...]) -> list[tuple[bytes, bytes]]:
        """All headers of the head that has these values of its own."""
        headers = self._headers.copy()
        for at, name, value in zip(self._at, self._names, own, strict=True):
            headers[at] = name, value
        return headers


shapes: dict[tuple[bytes, ...], Shape] = {}
"""By the names of their own lines with what stands around them."""


def read_head(block: bytes) -> PlainHead | None:
    """What a head says that is not kept; `None` if the parser must judge. It ends before its blank line."""
    parts = _OWN.split(block)
    if len(parts) == 1:
        plain = _read_lines(block)
        if plain is not None and not plain[3]:
            _keep(kept, block, plain)
        return plain
    own = tuple(parts[2::3])
    del parts[2::3]
    around = tuple(parts)
    shape = shapes.get(around)
    if shape is not None:
        return shape.with_own(own)
    plain = _read_lines(block, -len(own))
    if plain is not None and not plain[3] and len({name.lower() for name in around[1::2]}) == len(own):
        _keep(shapes, around, Shape(plain, around))
    return plain


def _keep(store: dict[K, V], key: K, value: V) -> None:
    if len(store) >= MOST_KEPT:
        store.clear()
    store[key] = value


def _read_lines(block: bytes, new: int = 0) -> PlainHead | None:
    lines = block.split(b"\r\n")
    status = read_status(lines.pop(0))
    if not status:
        return None
    headers, shown = [], []
    says = length = 0
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
    return AnswerHead(status, headers, (shown, says)), says, length, new
