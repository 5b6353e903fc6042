"""Answers as HTTP/1.1 frames them, sans-io: bytes in any split go in, heads and bodies come out."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from predawn.proxy.upstreams.answer_head import AnswerHead, Shape, kept, read_head
from predawn.proxy.upstreams.header_line import IS_CHUNKED

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_HEAD_BYTES = 64 << 10
"""Of an answer's head with the 1xx answers before it; also of what is no body, such as trailers, at a stretch."""
LONGEST_CHUNK = 4 << 10
"""Bytes of a chunk, framing and all, that is known without the parser."""
LONGEST_HEAD = 4 << 10
"""Bytes of a head that is read without the parser."""
PATIENCE = 16
"""So many answers in a row may not be worth it: they come in parts, or two of their lines or more are new."""
MOST_CHUNKS = 64
"""Of one read, that are told without the parser."""
TRANSFER_ENCODING = b"transfer-encoding"
LONGEST_SIZE_LINE = 6
_SIZE = re.compile(rb"([1-9a-fA-F][0-9a-fA-F]{0,3})\r\n")


class AnswerReader:
    """Reads the answers that come on one connection, one after another.

    waiting ──1xx──> waiting ──head──> body ──> over ──start──> waiting
       └──────────────────────────┴── `fault`: what it said is not HTTP, or not a kind that is understood

    One parser serves all answers of a connection: a new one for each costs 1 µs. It refuses what could be read in two
    ways (both lengths, two lengths, folded headers, bare line feeds); its words for it never quote what was sent.
    """

    __slots__ = (
        "_codings",
        "_feed",
        "_headers",
        "_is_hint",
        "_is_to_head",
        "_parser",
        "_patience",
        "_shape",
        "_unframed",
        "_untold",
        "fault",
        "head",
        "is_between",
        "is_over",
        "is_reusable",
        "pieces",
    )

    def __init__(self) -> None:
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        self._feed: Callable[[bytes], None] = self._parser.feed_data
        self._patience = PATIENCE
        self._shape: Shape | None = None
        """Of the head that came last; the next is likely to have it, too."""
        self.start(is_to_head=False)

    def start(self, *, is_to_head: bool) -> None:
        """Expect the next answer; one to HEAD has no body, whatever it says."""
        self._headers: list[tuple[bytes, bytes]] = []
        self._is_to_head = is_to_head
        self._is_hint = False
        self._codings = 0
        self._unframed = 0
        """Bytes since the last that belonged to a body."""
        self._untold = b""
        """The head of an answer that is read without the parser, for which it is there should anything unusual come."""
        self.is_between = False
        """True from the head of chunks, or the end of one, until something of the next is there, as far as is known."""
        self.head: AnswerHead | None = None
        self.pieces: list[bytes] = []
        """What came of the body; whoever takes it clears the list."""
        self.is_over = False
        self.is_reusable = False
        """True once it is over and the connection may bring another."""
        self.fault: str | None = None

    def read_first(self, data: bytes) -> bool:
        """Read an answer's first bytes, if they are all of it, or its head with whole chunks; else nothing was read.

        Then `feed` is for them. Most answers begin so, and the lines of their heads come again and again, which the
        parser cannot know; what that saves, `answer_head` tells. A new line costs 1 µs, and the parser 0.3.
        """
        if self.head is not None or self._unframed or self._is_to_head or not self._patience:
            return False
        block, blank, body = data.partition(b"\r\n\r\n")
        if not blank or len(block) > LONGEST_HEAD:
            return self._in_vain()
        plain = (self._shape and self._shape.read(block)) or kept.get(block) or read_head(block)
        if plain is None:
            return self._in_vain()
        head, says, length, new = plain
        self._shape = head.shape
        chunks = unchunked(body) if says & IS_CHUNKED and not length else None
        is_whole = not says & IS_CHUNKED and 0 < length == len(body)
        if chunks is None and not is_whole:
            return self._in_vain()
        # a line may be new now and then; where two are each time, the parser is quicker
        self._patience = PATIENCE if new < 2 else self._patience - 1
        self.head = head
        if chunks is None:
            self.pieces.append(body)
            self.is_over = self.is_reusable = True
        else:
            self._untold = block + blank
            self._take(*chunks)
        return True

    def read_on(self, data: bytes) -> bool:
        """Read whole chunks, and the end if it is there, of an answer that `read_first` has begun; else nothing."""
        chunks = unchunked(data) if self._untold and self.is_between else None
        if chunks is None:
            return False
        self._take(*chunks)
        return True

    def _take(self, pieces: list[bytes], is_end: bool) -> None:
        self.pieces += pieces
        self.is_over = self.is_reusable = is_end
        self.is_between = not is_end
        if is_end:
            self._untold = b""

    def _in_vain(self) -> bool:
        self._patience -= 1
        return False

    def feed(self, data: bytes) -> None:
        """Read on. What came before a `fault` is good."""
        self._unframed += len(data)
        untold, self._untold = self._untold, b""
        try:
            if untold:  # between two chunks it does not matter how many there were
                self._feed(untold)
            self._feed(data)
        except HttpParserError as exc:
            if not self.is_over:
                self.fault = self.fault or str(exc)
            self.is_reusable = False
        except HttpParserUpgrade:
            self.fault = "it switches protocols"
        if self.is_between:  # of the next size line the parser tells when it is whole; a part holds no line feed
            self.is_between = data.endswith(b"\n")
        if self.pieces:
            self._unframed = 0
        elif self._unframed > MAX_HEAD_BYTES and not self.is_over:
            self.fault = self.fault or f"more than {MAX_HEAD_BYTES >> 10} KiB that are no body"

    @property
    def ends_by_closing(self) -> bool:
        """True if the body goes on until the connection is closed."""
        head = self.head
        return (
            head is not None
            and not self.is_over
            and self.fault is None
            and head.get(b"content-length") is None
            and head.get(TRANSFER_ENCODING) is None
        )

    def close(self) -> None:
        """Let go of the parser, which holds on to this object."""
        self._parser = None
        self._feed = _deaf

    # -- called by the parser

    def on_message_begin(self) -> None:
        self.is_reusable = False  # after an answer that is over: nobody asked for another

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) == len(TRANSFER_ENCODING) and name.lower() == TRANSFER_ENCODING and self.head is None:
            self._codings += 1
            if self._codings > 1 or value.rstrip(b" ").lower() != b"chunked":
                self.fault = self.fault or "an unknown transfer coding"
        self._headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        headers, self._headers = self._headers, []  # what is put there now is a trailer
        if self.is_over or self.head is not None:
            return
        if status < 200:
            self._is_hint = status >= 100 and status != 101
            if not self._is_hint:
                self.fault = f"status {status}"
            elif self._codings or any(name.lower() == b"content-length" and value != b"0" for name, value in headers):
                self.fault = self.fault or f"a body of status {status}"  # the parser would take it for the next one's
            return
        if (
            self._unframed > MAX_HEAD_BYTES
            and sum(len(name) + len(value) + 4 for name, value in headers) > MAX_HEAD_BYTES
        ):
            self.fault = self.fault or f"a head of more than {MAX_HEAD_BYTES >> 10} KiB"
        if self.fault is not None:
            return
        if not self._parser.should_keep_alive() and self._parser.get_http_version() not in ("1.1", "1.0"):
            self.fault = "another version of HTTP"
            return
        self.head = AnswerHead(status, headers)
        self.is_over = self._is_to_head

    def on_body(self, data: bytes) -> None:
        if not self.is_over and self.fault is None:
            self.pieces.append(data)

    def on_chunk_header(self) -> None:
        self.is_between = False

    def on_chunk_complete(self) -> None:
        self.is_between = self.head is not None and not self.is_over and self.fault is None

    def on_message_complete(self) -> None:
        if self._is_hint:
            self._is_hint = False
        elif not self.is_over and self.head is not None:
            assert self._parser is not None
            self.is_over, self.is_between = True, False
            self.is_reusable = self._parser.should_keep_alive()


@lru_cache(LONGEST_CHUNK)
def size_lines(length: int) -> tuple[bytes, ...]:
    """What a chunk of this length, framing and all, may begin with; none if no chunk has it, or it is long.

    Digits are small, or all of them large, as hyper writes them.
    """
    for digits in range(1, len(b"%x" % length) + 1 if length <= LONGEST_CHUNK else 0):
        line = b"%x\r\n" % max(length - digits - 4, 0)
        if len(line) == digits + 2 and line != b"0\r\n":
            return tuple(dict.fromkeys((line, line.upper())))
    return ()


def framed(data: bytes) -> int:
    """Where the payload begins if this, read between two chunks, is one whole chunk, which then need not be fed.

    The payload ends before the last two bytes. 0 for everything else, also for a chunk of more than `LONGEST_CHUNK` and
    for one whose size is written in another way than the usual. Most reads of a stream bring one chunk, which so needs
    neither the parser with its calls nor to be framed anew: 1.1 µs became 0.8, and 9.7 became 6 with cold caches.
    """
    lines = size_lines(len(data))
    return len(lines[0]) if lines and data.startswith(lines) and data.endswith(b"\r\n") else 0


def unchunked(data: bytes) -> tuple[list[bytes], bool] | None:
    """What the whole chunks brought that this is, and whether the end is behind them; `None` if it is anything else.

    Sizes are read in the usual way alone: at most four digits, none of them a zero before the others. Of many small
    chunks the parser reads each in a third of the time.
    """
    if at := framed(data):  # mostly, and what this needs is in the caches
        return [data[at:-2]], False
    if data and not data.endswith(b"\r\n"):
        return None
    pieces: list[bytes] = []
    while at < len(data) and len(pieces) <= MOST_CHUNKS:
        begins = data.find(b"\n", at, at + LONGEST_SIZE_LINE) + 1
        size = _size_in(data[at:begins])
        if not size:
            return (pieces, True) if data[at:] == b"0\r\n\r\n" else None
        ends = begins + size
        if data[ends : ends + 2] != b"\r\n":
            return None
        pieces.append(data[begins:ends])
        at = ends + 2
    return (pieces, False) if at == len(data) else None


@lru_cache(LONGEST_CHUNK)
def _size_in(line: bytes) -> int:
    """The size that a chunk's first line tells; 0 if it does not in the usual way.

    37 µs for the end of a stream became 28 where the caches are cold: sizes come again, and nothing else here needs
    regular expressions.
    """
    size = _SIZE.fullmatch(line)
    return int(size[1], 16) if size is not None else 0


def _deaf(data: bytes) -> None:
    pass
