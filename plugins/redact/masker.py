"""Masks a text that arrives in pieces exactly as it would mask the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from predawn.plugins.redact.rules import Found, Rule


class Segment(NamedTuple):
    """A settled stretch of the text: as it came, or with what stands in its place."""

    text: str
    shown: str
    rule: str | None = None
    """Name of the rule that masked it."""


class Masker:
    """Holds back what may still become a match, at most `window` characters of it.

    Whether a match starts at a character depends on at most `window` characters from there on and as many before, and
    never on how the text was cut into pieces: a start is settled once no path of any rule reaches the end of what has
    arrived, or when a full window of it is there, or when the text ends. Leftmost matches win, then the earlier rule.
    """

    __slots__ = ("_at", "_rules", "_text", "_window")

    def __init__(self, rules: Sequence[Rule], window: int) -> None:
        self._rules = rules
        self._window = window
        self._text = ""
        """Context for lookbehinds, then what is not settled yet."""
        self._at = 0
        """Where the unsettled part begins."""

    def feed(self, text: str) -> list[Segment]:
        """Take the next piece; return what is settled now."""
        return self._take(text, final=False)

    def finish(self, text: str = "") -> list[Segment]:
        """Take the last piece; return all that was held back. The masker is as new afterwards."""
        out = self._take(text, final=True)
        self._text, self._at = "", 0
        return out

    def _take(self, text: str, *, final: bool) -> list[Segment]:
        out: list[Segment] = []
        start = 0
        while True:
            room = self._window - (len(self._text) - self._at)
            self._text += text[start : start + room]
            start += room
            ended = start >= len(text)
            self._settle(out, final=final and ended)
            cut = max(0, self._at - self._window)
            self._text, self._at = self._text[cut:], self._at - cut
            if ended:
                return out

    def _settle(self, out: list[Segment], *, final: bool) -> None:
        while self._at < len(self._text):
            end = len(self._text)
            settled = end if final else min(rule.open_from(self._text, self._at) for rule in self._rules)
            if found := self._first(settled):
                self._mask(out, *found)
            elif settled > self._at:
                self._pass(out, settled)
            elif end - self._at < self._window:
                return
            elif found := self._here():
                self._mask(out, *found)
            else:
                self._pass(out, self._at + 1)

    def _first(self, before: int) -> tuple[Rule, Found] | None:
        best: tuple[Rule, Found] | None = None
        for rule in self._rules:
            if found := rule.find(self._text, self._at, before):
                best, before = (rule, found), found.start
        return best

    def _here(self) -> tuple[Rule, Found] | None:
        for rule in self._rules:
            if found := rule.find_at(self._text, self._at):
                return rule, found
        return None

    def _mask(self, out: list[Segment], rule: Rule, found: Found) -> None:
        self._pass(out, found.start)
        out.append(Segment(self._text[found.start : found.end], rule.replacement, rule.name))
        self._at = found.end

    def _pass(self, out: list[Segment], until: int) -> None:
        if until > self._at:
            text = self._text[self._at : until]
            out.append(Segment(text, text))
            self._at = until
