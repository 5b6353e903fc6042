"""What is observed of a stream while it is relayed: times, counts, and its end, where usage and end mark stand."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from predawn.proxy.wire.openai import NamedEventWatch, has_ended, usage_of_lines, usage_of_messages, usage_of_tail

if TYPE_CHECKING:
    from predawn.proxy.exchange import RouteName
    from predawn.proxy.wire.openai import Usage

TAIL_BYTES = 8 << 10
"""Bytes kept of a stream's end; the usage and the end mark stand there."""
MOST_NOTED = 32
"""Chunks that may wait to be counted."""
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
        self._tail: list[bytes] = []
        self._tail_size = 0

    def saw(self, data: bytes) -> None:
        """Count one read of the body, which comes now."""
        if self.chunks:
            self.count()
        self._timed(perf_counter())
        self._counted(data, 1)

    def count(self) -> None:
        """Count what was noted."""
        chunks = self.chunks
        if chunks:
            for at in self.times:
                self._timed(at)
            self._counted(b"".join([framed[framed.index(b"\n") + 1 : -2] for framed in chunks]), len(chunks))
            chunks.clear()
            self.times.clear()

    def _timed(self, now: float) -> None:
        if self.first_at:
            gap = now - self.last_at
            if gap > self.max_gap_s:  # noqa: PLR1730 - max() costs three times as much, and this runs per chunk
                self.max_gap_s = gap
        else:
            self.first_at = now
        self.last_at = now

    def _counted(self, data: bytes, reads: int) -> None:
        self.reads += reads
        self.events += data.count(b"data:")
        self._tail.append(data)
        self._tail_size += len(data)
        if self._tail_size > 2 * TAIL_BYTES:  # not at each read: what came long ago left the caches
            self._forget()
        if self._watch is not None:
            self._watch.saw(data)

    def _forget(self) -> None:
        tail, at = self._tail, 0
        while self._tail_size - len(tail[at]) >= TAIL_BYTES:
            self._tail_size -= len(tail[at])
            at += 1
        del tail[:at]

    @property
    def has_ended(self) -> bool:
        """True once the answer's end mark was there, or an error that explains why not."""
        if self._watch is not None:
            return self._watch.ended or has_ended(self.tail, self.route)
        return b"".join(self._tail[-2:]).endswith(_DONE) or has_ended(self.tail, self.route)

    @property
    def usage(self) -> Usage | None:
        """What the stream told of its tokens."""
        if self.route == "messages" and self._watch is not None:
            return usage_of_messages(self.tail, self._watch.head)
        # the last two reads mostly tell it, and the rest left the caches long ago: 20 µs to join all
        return usage_of_lines(b"".join(self._tail[-2:])) or usage_of_tail(self.tail)

    @property
    def tail(self) -> bytes:
        """At least the last `TAIL_BYTES` bytes, or all there were."""
        return b"".join(self._tail)

    @property
    def mean_gap_s(self) -> float | None:
        """Mean time between two events; reads that brought several count as several."""
        return (self.last_at - self.first_at) / (self.events - 1) if self.events > 1 else None
