"""Looking for marks, such as stop strings, in a text that comes token by token."""

from __future__ import annotations

from collections.abc import Sequence


class MarkSearch:
    """Lets a text through up to the first mark, and holds back what may be the beginning of one.

    The first mark is the one that is complete first, so the result does not depend on how the text was split.
    """

    def __init__(self, marks: Sequence[str]) -> None:
        self._marks = tuple(marks)
        self._longest = max(map(len, self._marks), default=0)
        self._held = ""

    def feed(self, text: str) -> tuple[str, str | None]:
        """What may go out now, and the mark right after it if one was found; `rest` then is what follows the mark."""
        if not self._marks:
            return text, None
        held = self._held + text
        found = [(at + len(mark), at, mark) for mark in self._marks if (at := held.find(mark)) >= 0]
        if found:
            end, start, mark = min(found)
            self._held = held[end:]
            return held[:start], mark
        start = self._safe(held)
        self._held = held[start:]
        return held[:start], None

    def rest(self) -> str:
        """What was held back; empty afterwards."""
        rest, self._held = self._held, ""
        return rest

    def _safe(self, held: str) -> int:
        """Where the longest end of `held` begins that begins a mark; its length if there is none."""
        for start in range(max(0, len(held) - self._longest + 1), len(held)):
            if any(mark.startswith(held[start:]) for mark in self._marks):
                return start
        return len(held)
