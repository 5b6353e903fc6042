"""What is observed of a stream while it is relayed: times, counts, and its end, where usage and end mark stand."""

from __future__ import annotations

import sys
from time import perf_counter
from typing import TYPE_CHECKING

from predawn.proxy.wire.openai import NamedEventWatch, has_ended, usage_of_lines, usage_of_messages, usage_of_tail

if TYPE_CHECKING:
    from collections.abc import Iterable

    from predawn.proxy.exchange import RouteName
    from predawn.proxy.wire.openai import Usage

TAIL_BYTES = 8 << 10
"""Bytes kept of a stream's end; the usage and the end mark stand there."""
MOST_NOTED = 32
"""Chunks that may wait to be counted."""
MOST_FRAMING = 8
"""Bytes that frame a chunk which is noted: up to four digits and two line ends."""
TINY = 64
"""Bytes of a chunk that is not worth an object of its own."""
_DONE = b"\ndata: [DONE]\n\n"


class StreamMeter:
    """What is observed of a stream, in plain attributes: nothing is sent to a metric per chunk.

    Reads are counted by `saw`. Whole chunks may be noted in `chunks` and `times` instead, up to `MOST_NOTED` of them;
    then `count` is called before anything else is read here. That is 0.34 µs a chunk against 0.39; where every chunk
    finds the caches cold, all that is done for one became 1.7 µs from 2.1.
    """

    __slots__ = (
        "_tail",
        "_tail_size",
        "_watch",
        "chunks",
        "events",
        "first_at",
        "last_at",
        "max_gap_s",
        "reads",
        "route",
        "times",
    )

    def __init__(self, route: RouteName = "raw") -> None:
        self.route: RouteName = route
        self._watch = NamedEventWatch(route) if route in ("responses", "messages") else None
        self.reads = 0
        self.events = 0
        self.first_at = 0.0
        self.last_at = 0.0
        self.max_gap_s = 0.0
        self.chunks: list[bytes] = []
        """As HTTP frames them, and not counted yet."""
        self.times: list[float] = []
        """When they came, by `perf_counter`."""
        self._tail: list[tuple[bytes | list[bytes], int]] = []
        """Reads as they were seen, and chunks as they were noted, with a lower bound of their bytes; oldest first."""
        self._tail_size = 0

    def saw(self, data: bytes, at: float | None = None) -> None:
        """Count one read of the body, which comes now, or came at this `perf_counter`."""
        if self.chunks:
            self.count()
        self._timed((perf_counter() if at is None else at,))
        self.reads += 1
        self.events += data.count(b"data:")
        self._keep(data, len(data))
        if self._watch is not None:
            self._watch.saw(data)

    def count(self) -> None:
        """Count what was noted."""
        if self.chunks:
            chunks = self.chunks[:]
            framed = b"".join(chunks)
            self._timed(self.times)
            self.reads += len(chunks)
            self.events += framed.count(b"data:")  # which no framing holds: sizes are hexadecimal
            if len(framed) < TINY * len(chunks):
                joined = b"".join(map(_payload, chunks))
                self._keep(joined, len(joined))
            else:
                self._keep(chunks, len(framed) - MOST_FRAMING * len(chunks))
            self.chunks.clear()  # never replaced: whoever notes holds on to both lists
            self.times.clear()
            if self._watch is not None:
                self._watch.saw(b"".join(map(_payload, chunks)))

    def _timed(self, times: Iterable[float]) -> None:
        last, widest = self.last_at if self.first_at else 0.0, self.max_gap_s  # a pause may set the last alone
        for now in times:
            if last:
                gap = now - last
                if gap > widest:  # noqa: PLR1730 - max() costs three times as much, and this runs per chunk
                    widest = gap
            else:
                self.first_at = now
            last = now
        self.last_at, self.max_gap_s = last, widest

    def _keep(self, reads: bytes | list[bytes], size: int) -> None:
        self._tail.append((reads, size))
        self._tail_size += size
        if self._tail_size > 2 * TAIL_BYTES:  # not at each read: what came long ago left the caches
            tail, at = self._tail, 0
            while self._tail_size - tail[at][1] >= TAIL_BYTES:
                self._tail_size -= tail[at][1]
                at += 1
            del tail[:at]

    def _latest(self, most: int) -> bytes:
        """The last reads, at most so many, as far as they are kept."""
        found: list[bytes] = []
        for reads, _ in reversed(self._tail):
            if isinstance(reads, bytes):
                found.append(reads)
            else:
                found += map(_payload, reversed(reads[len(found) - most :]))
            if len(found) == most:
                break
        return b"".join(reversed(found))

    @property
    def has_ended(self) -> bool:
        """True once the answer's end mark was there, or an error that explains why not."""
        if self._watch is not None:
            return self._watch.ended or has_ended(self.tail, self.route)
        last = self._tail[-1][0] if self._tail else b""
        if isinstance(last, bytes) and last.endswith(_DONE):  # to join two takes 15 µs where the caches are cold
            return True
        return self._latest(2).endswith(_DONE) or has_ended(self.tail, self.route)

    @property
    def usage(self) -> Usage | None:
        """What the stream told of its tokens."""
        if self.route == "messages" and self._watch is not None:
            return usage_of_messages(self.tail, self._watch.head)
        # the last two reads mostly tell it, and the rest left the caches long ago: 20 µs to join all
        return usage_of_lines(self._latest(2)) or usage_of_tail(self.tail)

    @property
    def tail(self) -> bytes:
        """At least the last `TAIL_BYTES` bytes, or all there were."""
        return self._latest(sys.maxsize)

    @property
    def mean_gap_s(self) -> float | None:
        """Mean time between two events; reads that brought several count as several."""
        return (self.last_at - self.first_at) / (self.events - 1) if self.events > 1 else None


def _payload(framed: bytes) -> bytes:
    """What a whole chunk brought."""
    return framed[framed.index(b"\n") + 1 : -2]
