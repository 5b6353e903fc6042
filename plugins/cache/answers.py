"""Answers kept in memory: least recently used ones go first, and none outlives its time."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

ENTRY_BYTES = 600
"""What an entry costs besides its bytes, measured for an answer of few chunks."""
PIECE_BYTES = 120


@dataclass(frozen=True, slots=True)
class Piece:
    """One chunk as it came."""

    raw: bytes
    event: str | None
    is_last: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer, and whose it is."""

    tenant: str
    pieces: tuple[Piece, ...]
    streamed: bool
    content_type: str
    upstream: str
    upstream_model: str
    made_at: float
    """Monotonic clock, seconds."""

    @property
    def size(self) -> int:
        return ENTRY_BYTES + sum(len(piece.raw) + PIECE_BYTES for piece in self.pieces)


class Answers:
    """Bounded by entries and by bytes."""

    def __init__(self, max_entries: int, max_bytes: int, ttl_s: float) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._answers: OrderedDict[bytes, Answer] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: bytes, tenant: str, now: float) -> Answer | None:
        """A tenant's answer that is still fresh."""
        answer = self._answers.get(key)
        if answer is None:
            return None
        if now - answer.made_at >= self._ttl_s:
            self._remove(key)
            return None
        if answer.tenant != tenant:
            return None
        self._answers.move_to_end(key)
        return answer

    def put(self, key: bytes, answer: Answer) -> None:
        """Keep an answer; one that is larger than all the room there is, is not kept."""
        if key in self._answers:
            self._remove(key)
        if answer.size > self._max_bytes:
            return
        self._answers[key] = answer
        self.bytes += answer.size
        while len(self._answers) > self._max_entries or self.bytes > self._max_bytes:
            self._remove(next(iter(self._answers)))
        assert self.bytes >= 0

    def _remove(self, key: bytes) -> None:
        self.bytes -= self._answers.pop(key).size
