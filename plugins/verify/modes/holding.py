"""What of one choice has come and was not sent yet, in the order in which it came."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from predawn.plugins.verify.reading import Key, Part, cut_in_two
from predawn.plugins.verify.trace import is_behind

if TYPE_CHECKING:
    from collections.abc import Callable

    from predawn.plugins import Chunk
    from predawn.plugins.verify.trace import Trace


@dataclass(frozen=True, slots=True)
class Span:
    """Where a piece stands in its text."""

    key: Key
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Held:
    """A chunk of one choice with what it says."""

    part: Part
    spans: tuple[Span, ...]


class Holding:
    """Gives out what is verified; `is_free` names texts that need not wait."""

    __slots__ = ("_held", "_is_free", "_trace", "sent")

    def __init__(self, trace: Trace, is_free: Callable[[Key], bool]) -> None:
        self._trace = trace
        self._is_free = is_free
        self._held: deque[Held] = deque()
        self.sent: dict[Key, int] = {}
        """Up to where each text was sent."""

    def __len__(self) -> int:
        return len(self._held)

    def add(self, held: Held) -> None:
        self._held.append(held)

    def release(self) -> list[Chunk]:
        """What may be sent now, and is held no more."""
        chunks: list[Chunk] = []
        while self._held:
            held = self._held[0]
            if self._may_go(held):
                self._held.popleft()
                chunks.append(held.part.chunk)
                for span in held.spans:
                    self.sent[span.key] = max(self.sent.get(span.key, 0), span.end)
                continue
            if (at := self._partly(held)) is None:
                break
            self._held.popleft()
            self._held.extendleft(reversed(_halves(held, at)))
        return chunks

    def _may_go(self, held: Held) -> bool:
        trace = self._trace
        if held.part.finish is not None and not trace.is_verified:
            return False
        for span in held.spans:
            if self._is_free(span.key):
                continue
            if trace.verified(span.key) < span.end:
                return False
            if span.key.where != "reasoning" and not trace.thoughts_are_verified:
                return False
        return True

    def _partly(self, held: Held) -> int | None:
        """Where a piece has to be cut of which only the beginning is verified."""
        if not held.part.is_plain:
            return None
        (span,) = held.spans
        if span.key.where != "reasoning" and not self._trace.thoughts_are_verified:
            return None
        at = self._trace.verified(span.key) - span.start
        return at if 0 < at < span.end - span.start else None

    def cut(self, key: Key, at: int) -> None:
        """Forget what is held of a text after `at`, and all that follows the text."""
        kept: deque[Held] = deque()
        for held in self._held:
            if held.part.finish is not None or any(is_behind(span.key, key) for span in held.spans):
                continue
            own = [span for span in held.spans if span.key == key]
            if not own or (own[-1].end <= at and key.where != "tool_call"):
                kept.append(held)
            elif len(held.spans) == 1 and own[0].start < at and key.where != "tool_call":
                kept.append(_halves(held, at - own[0].start)[0])
        self._held = kept

    def clear(self) -> None:
        self._held.clear()


def _halves(held: Held, at: int) -> tuple[Held, Held]:
    (span,) = held.spans
    one, other = cut_in_two(held.part, at)
    middle = span.start + at
    return Held(one, (Span(span.key, span.start, middle),)), Held(other, (Span(span.key, middle, span.end),))
