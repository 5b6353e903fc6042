"""Patterns of the `regex` package, searched in slices and within a time limit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from predawn.plugins.verify.verifiers.settings import PatternRule
from predawn.plugins.verify.verifiers.slices import Breath

SLICE = 8_192
_PROBES = ("a", "Z", "0", "_", " ", ".", "-", "\n", "\u00e9")
"""What may follow the text."""
AHEAD = 1
"""How far behind a match its pattern may look: `$` matches before a line break that ends the text, too."""


@dataclass(frozen=True, slots=True)
class Span:
    """Where a pattern matched."""

    start: int
    end: int


class Pattern:
    """A compiled rule. A search that takes longer than `timeout_s` raises `TimeoutError`."""

    __slots__ = ("_compiled", "_timeout_s", "name", "why")

    def __init__(self, rule: PatternRule, *, ignore_case: bool, timeout_s: float) -> None:
        compiled = compile_pattern(rule.pattern, ignore_case=ignore_case)
        if compiled.search("") is not None:
            raise ValueError(f"pattern {rule.pattern!r} matches the empty text; make it match at least one character")
        self._compiled = compiled
        self._timeout_s = timeout_s
        self.name = rule.name or rule.pattern
        self.why = rule.why

    async def find(self, text: str, start: int, since: int, *, is_last: bool, longest: int) -> Span | None:
        """The first match from `start` on that ends behind `since`, or before if what follows decides about it.

        A match that another character after `text` could undo is left to the next step.
        """
        breath = Breath()
        for low in range(start, max(len(text), start + 1), SLICE):
            high = min(low + SLICE, len(text))
            end = min(len(text), high + longest)
            for span in self._matches(text, low, high, end):
                if span.end < since - AHEAD or (span.end <= since and not self._hung(text, span, since)):
                    continue
                if span.end >= len(text) - AHEAD and not is_last and not self._stands(text, span):
                    continue
                return span
            await breath()
        return None

    def _matches(self, text: str, low: int, high: int, end: int) -> Iterator[Span]:
        """Matches that begin in `[low, high)`, overlapping ones too."""
        at = low
        while at < high:
            found = self._compiled.search(text, at, end, timeout=self._timeout_s, concurrent=False)
            if found is None or found.start() >= high:
                return
            at = found.start() + 1
            if end < len(text):  # what ended the slice is no end of the text
                found = self._compiled.match(text, found.start(), timeout=self._timeout_s)
            if found is not None and found.end() > found.start():
                yield Span(found.start(), found.end())

    def _stands(self, text: str, span: Span) -> bool:
        """Whether it matches, however the text goes on."""
        around = text[max(0, span.start - 256) :]
        at = span.start - max(0, span.start - 256)
        return all(self._compiled.match(around + probe, at, timeout=self._timeout_s) for probe in _PROBES)

    def _hung(self, text: str, span: Span, since: int) -> bool:
        """Whether a match that ends before `since` could not be told there."""
        return since > 0 and not self._stands(text[:since], span)


def compile_pattern(pattern: str, *, ignore_case: bool = False) -> Any:
    """Raises `ValueError` saying what is wrong with a pattern, or which package is missing."""
    try:
        import regex  # type: ignore[import-untyped]
    except ImportError as exc:
        raise ValueError("patterns need the package `regex`: pip install 'predawn[verify]'") from exc
    try:
        return regex.compile(pattern, regex.IGNORECASE if ignore_case else 0)
    except regex.error as exc:
        raise ValueError(f"pattern {pattern!r} is not a regular expression: {exc}") from exc
