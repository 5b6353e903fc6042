"""What of one choice has come and was not sent yet, in the order in which it came."""

from __future__ import annotations

from collections import deque
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from predawn.plugins import Chunk
from predawn.plugins.verify.reading import Key, Part, Piece, cut_in_two, head_part
from predawn.plugins.verify.trace import EVERYTHING, is_behind

if TYPE_CHECKING:
    from collections.abc import Callable

    from predawn.plugins.verify.trace import Trace


class Span(NamedTuple):
    """Where a piece stands in its text."""

    key: Key
    start: int
    end: int


class Held(NamedTuple):
    """A chunk of one choice with what it says."""

    part: Part
    spans: tuple[Span, ...]


class HeldText(msgspec.Struct, gc=False):
    """The same of a chunk that only adds to one text, in one object in place of seven.

    The garbage collector need not know of it: it went through 12,000 of them again and again, at 5 µs for each chunk.
    """

    raw: bytes
    choice: int
    key: Key
    member: str
    text: str
    end: int

    @property
    def start(self) -> int:
        return self.end - len(self.text)

    @property
    def part(self) -> Part:
        return Part(self.choice, (Piece(self.key, self.text, None, self.member),), None, Chunk(self.raw), True)

    @property
    def spans(self) -> tuple[Span, ...]:
        return (Span(self.key, self.start, self.end),)


class Holding:
    """Gives out what is verified; `is_free` names texts that need not wait."""

    __slots__ = ("_has_begun", "_held", "_is_free", "_trace", "sent")

    def __init__(self, trace: Trace, is_free: Callable[[Key], bool]) -> None:
        self._trace = trace
        self._is_free = is_free
        self._held: deque[Held | HeldText] = deque()
        self._has_begun = False
        self.sent: dict[Key, int] = {}
        """Up to where each text was sent."""

    def __len__(self) -> int:
        return len(self._held)

    def add(self, held: Held | HeldText) -> bool:
        """Put it behind what is held; whether there is any."""
        self._held.append(held)
        return len(self._held) > 1

    def _release_texts(self) -> list[Chunk]:
        """Of what comes next, chunks that only add to one text and are verified."""
        chunks: list[Chunk] = []
        waiting = self._held
        while waiting and isinstance(first := waiting[0], HeldText):
            key, end = first.key, 0
            limit = self._limit(key)
            while waiting and isinstance(held := waiting[0], HeldText) and held.key == key and held.end <= limit:
                end = held.end
                chunks.append(Chunk(held.raw))
                waiting.popleft()
            if not end:
                break
            self._has_begun = True
            self.sent[key] = max(self.sent.get(key, 0), end)
        return chunks

    def _limit(self, key: Key) -> int:
        """Up to where a text may go."""
        if self._is_free(key):
            return EVERYTHING
        if key.where != "reasoning" and not self._trace.thoughts_are_verified:
            return -1
        return self._trace.verified(key)

    def release(self) -> list[Chunk]:
        """What may be sent now, and is held no more."""
        chunks = self._release_texts()
        while self._held:
            held = self._held[0]
            if isinstance(held, HeldText) and self._limit(held.key) <= held.start:
                break  # nothing of it is verified, as mostly; to find that out below takes five objects
            if self._may_go(held):
                self._held.popleft()
                self._has_begun = True
                chunks.append(held.part.chunk)
                for span in held.spans:
                    self.sent[span.key] = max(self.sent.get(span.key, 0), span.end)
                continue
            if (at := self._partly(held)) is None:
                break
            self._held.popleft()
            self._held.extendleft(reversed(_halves(held, at)))
        return chunks

    def _may_go(self, held: Held | HeldText) -> bool:
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

    def _partly(self, held: Held | HeldText) -> int | None:
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
        kept, heads = deque[Held | HeldText](), self._heads()
        is_cut = False
        for held in self._held:
            left = None if is_cut and not held.spans else _left(held, key, at)
            is_cut = is_cut or left is not held  # what says nothing tells there how a text ended that is gone
            if left is not None:
                kept.append(left)
            elif not kept or all(not one.spans for one in kept):
                kept = deque(heads)
        self._held = kept

    def clear(self) -> list[Held | HeldText]:
        """Forget all that is held but its beginning, which is returned: who speaks, and what says nothing yet."""
        heads = self._heads()
        self._held.clear()
        return heads

    def _heads(self) -> list[Held | HeldText]:
        heads = list(takewhile(lambda held: not held.spans and held.part.finish is None, self._held))
        if not self._has_begun and len(heads) < len(self._held):
            head = head_part(self._held[len(heads)].part)  # it comes once, and maybe with the first text
            heads += [Held(head, ())] if head is not None else []
        return heads


def _left(held: Held | HeldText, key: Key, at: int) -> Held | HeldText | None:
    """What remains of a chunk when a text is cut at `at`."""
    if held.part.finish is not None or any(is_behind(span.key, key) for span in held.spans):
        return None
    own = [span for span in held.spans if span.key == key]
    if not own or (own[-1].end <= at and key.where != "tool_call"):
        return held
    if len(held.spans) == 1 and own[0].start < at and key.where != "tool_call":
        return _halves(held, at - own[0].start)[0]
    return None


def _halves(held: Held | HeldText, at: int) -> tuple[Held, Held]:
    (span,) = held.spans
    one, other = cut_in_two(held.part, at)
    middle = span.start + at
    return Held(one, (Span(span.key, span.start, middle),)), Held(other, (Span(span.key, middle, span.end),))
