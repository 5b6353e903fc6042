"""Text into steps, piece by piece: where a step ends depends on the text alone, never on how it was cut into chunks.

A step holds everything up to its end, so that the steps of a channel put together are the channel. White space after a
sentence belongs to the next one: what stands before a step can then be continued by a model as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

if TYPE_CHECKING:
    from predawn.proxy.extensions import Boundary, BoundaryName

LONGEST_STEP: Final = 8192
WINDOW: Final = 200
"""Characters of a window, about 50 tokens; it goes on to the end of the word, for `WINDOW_REST` more at most."""
WINDOW_REST: Final = 40
LONGEST_NUMBER: Final = 16
"""Characters of a text that may be the number of a list item."""
Ends: TypeAlias = Callable[[str, int, int], bool]

_SENTENCE = re.compile(r"[.!?][\"'\u201d\u2019)\]*_]{0,4}(?=\s)|[\u3002\uff01\uff1f]|\n")
_LINE = re.compile(r"\n")
_PARAGRAPH = re.compile(r"\n[ \t\r]{0,80}\n")
_WINDOW = re.compile(r"\s")
_NUMBERED = re.compile(r"\s*(?:[-*•]\s*)?\(?(?:\d{1,3}|[A-Za-z]|[ivx]{2,4}|Dr|Mr|Mrs|Ms|St|vs|e\.g|i\.e)[.)]\Z")
"""What ends with a dot and is no sentence: the number of a list item, an initial."""
_SAYS = re.compile(r"\w")
_WORKED = re.compile(r"[=<>≤≥≠≈?]")
_STRUCTURE = re.compile(r"[\"\\{}\[\]]")


class Cutter(Protocol):
    """Finds the ends of the steps of one channel."""

    def feed(self, piece: str) -> list[int]:
        """The ends that are known now, as offsets from the channel's beginning."""
        ...


class _Growing:
    """A text that grows, of which what lies before the open step is forgotten."""

    __slots__ = ("_from", "_longest", "_scanned", "_text")

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._text = ""
        """From the beginning of the open step on."""
        self._from = 0
        """Where that is in the channel."""
        self._scanned = 0
        """Up to where the open step is known not to end."""

    def feed(self, piece: str) -> list[int]:
        """The ends that are known now. Never looks at more than one character beyond the longest step."""
        ends: list[int] = []
        taken = 0
        while True:
            room = self._longest + 1 - len(self._text)
            self._text += piece[taken : taken + room] if taken or len(piece) > room else piece
            taken += room
            while length := self._first():
                self._text = self._text[length:]
                self._from += length
                self._cut(length)
                ends.append(self._from)
            if taken >= len(piece):
                return ends

    def _first(self) -> int:
        """How long the open step is; 0 while that is not known. No step is longer than `longest`."""
        length = self._find()
        if 0 < length <= self._longest:
            return length
        return self._longest if len(self._text) > self._longest else 0

    def _find(self) -> int:
        raise NotImplementedError

    def _cut(self, length: int) -> None:
        del length
        self._scanned = 0


class PatternCutter(_Growing):
    """Steps end where a pattern does. `reach` is how far back a match may begin that needs more text to be one."""

    __slots__ = ("_ends", "_pattern", "_reach", "_says", "_since")

    def __init__(self, pattern: re.Pattern[str], reach: int, longest: int, ends: Ends | None = None) -> None:
        super().__init__(longest)
        self._pattern = pattern
        self._reach = reach
        self._ends = ends
        self._since = 0
        """Up to where the matches of the open step were no ends."""
        self._says = False
        """Whether there is more than white space and signs before that; blank lines go with what follows."""

    def _find(self) -> int:
        text = self._text
        found = self._pattern.search(text, self._scanned)
        while found is not None:
            end = found.end()
            self._says = self._says or _SAYS.search(text, self._since, end) is not None
            if self._says and (self._ends is None or self._ends(text, self._since, end)):
                return end
            self._scanned = self._since = end
            found = self._pattern.search(text, end)
        self._scanned = max(self._scanned, len(text) - self._reach)
        return 0

    def _cut(self, length: int) -> None:
        super()._cut(length)
        self._since = 0
        self._says = False


def _is_sentence(text: str, since: int, end: int) -> bool:
    """Whether a sentence ends at `end`; the number of a list item is none."""
    del since
    return end > LONGEST_NUMBER or text[end - 1] == "\n" or _NUMBERED.match(text, 0, end) is None


def _is_reasoning_step(text: str, since: int, end: int) -> bool:
    """A line, or sentences of which the last one works something out or asks; the others go with what follows."""
    return text[end - 1] == "\n" or _WORKED.search(text, since, end) is not None


class WindowCutter(_Growing):
    """Steps of about the same length, cut between words."""

    __slots__ = ()

    def feed(self, piece: str) -> list[int]:
        """The ends that are known now."""
        if len(self._text) + len(piece) <= min(WINDOW, self._longest):
            self._text += piece
            return []
        return super().feed(piece)

    def _find(self) -> int:
        text = self._text
        if len(text) <= WINDOW:
            return 0
        found = _WINDOW.search(text, WINDOW, WINDOW + WINDOW_REST)
        if found is not None:
            return found.start()
        return WINDOW + WINDOW_REST if len(text) >= WINDOW + WINDOW_REST else 0


class JsonCutter(_Growing):
    """Steps end with each JSON object or array that is complete; what stands around them goes with the next one."""

    __slots__ = ("_depth", "_in_text")

    def __init__(self, longest: int) -> None:
        super().__init__(longest)
        self._depth = 0
        self._in_text = False

    def _find(self) -> int:
        text, at = self._text, self._scanned
        while (found := _STRUCTURE.search(text, at)) is not None:
            at = found.end()
            mark = found[0]
            if mark == "\\":
                if self._in_text and at >= len(text):
                    self._scanned = at - 1  # what it stands before has not come
                    return 0
                at += self._in_text
            elif mark == '"':
                self._in_text = not self._in_text and self._depth > 0
            elif not self._in_text:
                self._depth = self._depth + 1 if mark in "{[" else max(self._depth - 1, 0)
                if not self._depth and mark in "}]":
                    self._scanned = at
                    return at
        self._scanned = len(text)
        return 0

    def _cut(self, length: int) -> None:
        self._scanned -= length


class OwnCutter(_Growing):
    """Steps as a verifier's own splitter says: a function from a text to the length of its first step."""

    __slots__ = ("_split",)

    def __init__(self, split: Callable[[str], int], longest: int) -> None:
        super().__init__(longest)
        self._split = split

    def _find(self) -> int:
        return min(max(self._split(self._text), 0), len(self._text)) if self._text else 0


class WholeCutter:
    """No step ends before the channel does: tool calls."""

    __slots__ = ()

    def feed(self, piece: str) -> list[int]:
        del piece
        return []


_MAKERS: Mapping[BoundaryName, Callable[[int], Cutter]] = {
    "line": lambda longest: PatternCutter(_LINE, 0, longest),
    "sentence": lambda longest: PatternCutter(_SENTENCE, 5, longest, _is_sentence),
    "paragraph": lambda longest: PatternCutter(_PARAGRAPH, 82, longest),
    "reasoning_step": lambda longest: PatternCutter(_SENTENCE, 5, longest, _is_reasoning_step),
    "json": JsonCutter,
    "tool_call": lambda _: WholeCutter(),
    "window": WindowCutter,
}


def cutter(boundary: Boundary, longest: int = LONGEST_STEP) -> Cutter:
    """A cutter for one channel."""
    return OwnCutter(boundary, longest) if callable(boundary) else _MAKERS[boundary](longest)


def name_of(boundary: Boundary) -> str:
    """What steps say of where they were cut."""
    return getattr(boundary, "__name__", "own") if callable(boundary) else boundary
