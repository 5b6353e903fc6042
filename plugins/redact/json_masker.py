"""Masks inside the strings of a JSON text that arrives in pieces, so that it stays valid JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from predawn.plugins.redact.masker import Masker, Segment
from predawn.plugins.redact.rules import Rule

_PLAIN = re.compile(r'[^"\\]+')
_SCALAR = re.compile(r'[^"{}\[\]:,\s]+')
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|([^u]))", re.DOTALL)
_UNFINISHED_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?\Z")
_SURROGATE_PAIR = re.compile(r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_UNFINISHED_PAIR = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?\Z")


class JsonMasker:
    """Shows rules the value of each string, and each bare number; what is not masked keeps its own spelling.

    A masked number becomes a string. Text that is no JSON is masked word by word.
    """

    __slots__ = ("_in_string", "_masker", "_raw", "_rest", "_rules", "_window")

    def __init__(self, rules: Sequence[Rule], window: int) -> None:
        self._rules = rules
        self._window = window
        self._masker = Masker(rules, window)
        self._raw: list[str] = []
        """How each character that the masker holds back was spelled."""
        self._rest = ""
        """A scalar or an escape that is not complete yet."""
        self._in_string = False

    def feed(self, text: str) -> list[Segment]:
        return self._take(text, final=False)

    def finish(self, text: str = "") -> list[Segment]:
        """Take the last piece; return all that was held back. The masker is as new afterwards."""
        out = self._take(text, final=True)
        if self._in_string:
            self._show(out, self._masker.finish())
        if self._rest:
            out.append(Segment(self._rest, self._rest))
        self._raw, self._rest, self._in_string = [], "", False
        return out

    def _take(self, text: str, *, final: bool) -> list[Segment]:
        text = self._rest + text
        self._rest = ""
        out: list[Segment] = []
        at = 0
        while at < len(text):
            step = self._string(out, text, at) if self._in_string else self._outside(out, text, at, final=final)
            if step == at:
                self._rest = text[at:]
                break
            at = step
        return out

    def _outside(self, out: list[Segment], text: str, at: int, *, final: bool) -> int:
        """Take one scalar or one mark of structure; returns `at` if more text is needed."""
        if scalar := _SCALAR.match(text, at):
            if scalar.end() == len(text) and not final:
                return at
            out.extend(_quoted(self._masker.finish(scalar[0])))
            return scalar.end()
        self._in_string = text[at] == '"'
        out.append(Segment(text[at], text[at]))
        return at + 1

    def _string(self, out: list[Segment], text: str, at: int) -> int:
        """Take a stretch of a string, one escape, or its end; returns `at` if more text is needed."""
        if plain := _PLAIN.match(text, at):
            self._raw.extend(plain[0])
            self._show(out, self._masker.feed(plain[0]))
            return plain.end()
        if text[at] == '"':
            self._show(out, self._masker.finish())
            out.append(Segment('"', '"'))
            self._in_string = False
            return at + 1
        if _UNFINISHED_ESCAPE.match(text, at) or _UNFINISHED_PAIR.match(text, at):
            return at
        char, end = _unescaped(text, at)
        self._raw.append(text[at:end])
        self._show(out, self._masker.feed(char))
        return end

    def _show(self, out: list[Segment], segments: list[Segment]) -> None:
        """Give settled characters their own spelling back, and replacements that of JSON."""
        for segment in segments:
            length = len(segment.text)
            raw = "".join(self._raw[:length])
            del self._raw[:length]
            shown = raw if segment.rule is None else json.dumps(segment.shown, ensure_ascii=False)[1:-1]
            out.append(Segment(raw, shown, segment.rule))


def _unescaped(text: str, at: int) -> tuple[str, int]:
    """The character that an escape stands for, and where the escape ends; half a pair counts as U+FFFD."""
    if pair := _SURROGATE_PAIR.match(text, at):
        high, low = int(pair[1], 16), int(pair[2], 16)
        return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)), pair.end()
    escape = _ESCAPE.match(text, at)
    if escape is None:  # a backslash before nonsense: this is no JSON, so it stands for itself
        return "\\", at + 1
    if escape[1] is None:
        return _ESCAPES.get(escape[2], escape[2]), escape.end()
    code = int(escape[1], 16)
    return ("\ufffd" if 0xD800 <= code <= 0xDFFF else chr(code)), escape.end()


def _quoted(segments: list[Segment]) -> list[Segment]:
    """A bare word; as a string if something in it was masked."""
    masked = [segment.rule for segment in segments if segment.rule is not None]
    if not masked:
        return segments
    shown = json.dumps("".join(segment.shown for segment in segments), ensure_ascii=False)
    return [Segment("".join(segment.text for segment in segments), shown, masked[0])]
