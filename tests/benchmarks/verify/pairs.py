"""Requests in pairs: one as it is, one with a header more, on the same connection one right after the other.

What disturbs a machine lasts longer than a request, so it disturbs both of a pair; their difference is what the header
costs. Which of them goes first is drawn by lot, for the first may leave work behind that the second one meets.
"""

import selectors
import socket
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil, floor, sqrt
from random import Random
from typing import Any

STAMP = b"@"
"""Stands once in each chunk with text."""
END = b"0\r\n\r\n"
PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Seen:
    """How one answer came: seconds since its request was sent."""

    first_s: float
    whole_s: float


Pair = tuple[Seen, Seen]
"""Without, and with."""


@dataclass(frozen=True, slots=True)
class Median:
    """The median of differences, and between which values it lies with 95 % confidence, whatever their distribution."""

    value: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Median":
        """Raises ValueError if there are none."""
        ordered, count = sorted(values), len(values)
        if not ordered:
            raise ValueError("no values")
        reach = 0.98 * sqrt(count)
        low, high = max(floor(count / 2 - reach), 0), min(ceil(count / 2 + reach), count - 1)
        return cls(statistics.median(ordered), ordered[low], ordered[high], count)

    def as_json(self) -> dict[str, Any]:
        return {"median": self.value, "low": self.low, "high": self.high, "pairs": self.count}


def added_ms(pairs: Sequence[Pair]) -> Median:
    """Until the first text."""
    return Median.of([(other.first_s - one.first_s) * 1000 for one, other in pairs])


def beyond_ms(pairs: Sequence[Pair], share: float = 1.01) -> Median:
    """What the whole answer takes beyond `share` of the time without."""
    return Median.of([(other.whole_s - one.whole_s * share) * 1000 for one, other in pairs])


def request_of(body: bytes, header: str = "") -> bytes:
    """A POST as clients of the API send it."""
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        "Host: 127.0.0.1",
        "Content-Type: application/json",
        "Authorization: Bearer sk-test",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, *([header] if header else []), "", ""]).encode() + body


@dataclass(slots=True)
class _Line:
    """A connection, and the pair that is under way on it."""

    sock: socket.socket
    requests: tuple[bytes, bytes]
    chunks: int
    random: Random
    order: list[int] = field(default_factory=list[int])
    seen: dict[int, Seen] = field(default_factory=dict[int, Seen])
    _sent_at: float = 0.0
    _first_at: float = 0.0
    _got: bytearray = field(default_factory=bytearray)

    def send(self) -> None:
        if not self.order:
            self.order = self.random.sample([0, 1], 2)
            self.seen = {}
        self._got.clear()
        self._first_at = 0.0
        request = self.requests[self.order[0]]
        self._sent_at = time.perf_counter()
        self.sock.sendall(request)

    @property
    def is_answered(self) -> bool:
        return self._got.endswith(END)

    def receive(self) -> Pair | None:
        """The pair, once both have come. Raises RuntimeError for an answer that is not whole."""
        data = self.sock.recv(1 << 18)
        now = time.perf_counter()
        if not data:
            raise RuntimeError(f"the connection was closed: {bytes(self._got[:300])!r}")
        self._got += data
        if not self._first_at and STAMP in data:
            self._first_at = now
        if not self.is_answered:
            return None
        found = self._got.count(STAMP)
        if found != self.chunks or b"[DONE]" not in self._got:
            raise RuntimeError(f"{found} chunks of {self.chunks}: {bytes(self._got[:300])!r}")
        self.seen[self.order.pop(0)] = Seen(self._first_at - self._sent_at, now - self._sent_at)
        return None if self.order else (self.seen[0], self.seen[1])


def paired(  # noqa: PLR0917 - one caller
    port: int, requests: tuple[bytes, bytes], chunks: int, connections: int, seconds: float, random: Random
) -> list[Pair]:
    """Pairs of answers that were begun within `seconds`; the first pair of each connection only warms it."""
    return list(_pairs(port, requests, chunks, connections, seconds, random))


def _pairs(  # noqa: PLR0917
    port: int, requests: tuple[bytes, bytes], chunks: int, connections: int, seconds: float, random: Random
) -> Iterator[Pair]:
    poller = selectors.EpollSelector()
    waiting = [_Line(_dialled(port), requests, chunks, random) for _ in range(connections)]
    random.shuffle(waiting)
    busy = warmed = 0
    lines = list(waiting)
    began = time.perf_counter()
    until = began + seconds
    gap_s = 0.5 / connections
    due = began
    try:
        for line in lines:
            poller.register(line.sock, selectors.EVENT_READ, line)
        while waiting or busy:
            while waiting and time.perf_counter() >= due:  # not all at the same moment
                waiting.pop().send()
                busy += 1
                due += gap_s
            ready = poller.select(gap_s if waiting else PATIENCE_S)
            if not ready and not waiting:
                raise RuntimeError(f"nothing came for {PATIENCE_S:g} s")
            for key, _ in ready:
                line = key.data
                pair = line.receive()
                if pair is not None:
                    warmed += 1
                    if warmed > connections:
                        yield pair
                if line.is_answered:
                    if line.order or time.perf_counter() < until:
                        line.send()
                    else:
                        busy -= 1
                        poller.unregister(line.sock)
    finally:
        poller.close()
        for line in lines:
            line.sock.close()


def _dialled(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock
