"""A JSON text read character by character: what begins, what it is called, what is complete, as soon as that is known.

The grammar is RFC 8259's. `feed` says where a text stops being the beginning of any JSON document.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Kind: TypeAlias = Literal["object", "array", "string", "number", "true", "false", "null"]
What: TypeAlias = Literal["begin", "key", "grown", "value", "end"]
MOST_DEPTH = 200
MOST_NUMBER = 400
MOST_GROWN = 4_096
_SPACE = re.compile(r"[ \t\r\n]*")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_ESCAPES = frozenset('"\\/bfnrt')
_HEX = frozenset("0123456789abcdefABCDEF")
_LITERALS = {"t": "true", "f": "false", "n": "null"}
_NUMBER_CHARS = re.compile(r"[0-9eE+.\-]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)
_NUMBER_BEGUN = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.(?:[0-9]+(?:[eE][+-]?[0-9]*)?)?|[eE][+-]?[0-9]*)?)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Event:
    """Something became known at a character of the text."""

    what: What
    """`begin` of a value of a kind, a `key`, a text that has `grown`, a scalar `value`, the `end` of a container."""
    at: int
    kind: Kind | None = None
    text: str = ""
    """The key, or a text as far as it is there."""
    value: Any = None


class JsonError(Exception):
    """The text cannot be JSON any more."""

    def __init__(self, at: int, message: str) -> None:
        super().__init__(message)
        self.at = at
        self.message = message


class JsonMachine:
    """Feed it pieces; it tells events, and raises `JsonError` at the first character that cannot stand there."""

    __slots__ = ("_at", "_awaits", "_escape", "_is_key", "_keys", "_raw", "_scalar", "_size", "_stack", "done")

    def __init__(self) -> None:
        self._at = 0
        self._stack: list[str] = []
        """`{` or `[` for each open container."""
        self._keys: list[set[str]] = []
        self._awaits = "value"
        """`value`, `value or ]`, `key`, `key or }`, `:`, `, or end`, `nothing`."""
        self._scalar = ""
        """`string`, `number` or `literal` while one is open."""
        self._raw: list[str] = []
        self._size = 0
        """Characters of the string that is open."""
        self._escape = ""
        self._is_key = False
        self.done = False

    @property
    def depth(self) -> int:
        return len(self._stack)

    @property
    def expects(self) -> str:
        """What must follow for the text to be complete."""
        if self._scalar == "string":
            return "the end of a string"
        if self._stack:
            return "}" if self._stack[-1] == "{" else "]"
        return "" if self.done else "a value"

    def feed(self, text: str) -> Iterator[Event]:
        at = 0
        while at < len(text):
            if self._scalar == "string":
                at = yield from self._string(text, at)
            elif self._scalar == "number":
                at = yield from self._number(text, at)
            elif self._scalar == "literal":
                at = yield from self._literal(text, at)
            else:
                at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
                if at < len(text):
                    yield from self._structure(text[at], self._at + at)
                    at += 1
        self._at += len(text)

    def finish(self) -> Iterator[Event]:
        """The text has ended. Raises `JsonError` if something is missing."""
        if self._scalar == "number":
            yield from self._number(" ", 0)
        if not self.done or self._scalar:
            raise JsonError(self._at, f"the JSON ends too early: {self.expects} is missing")

    # -- between scalars

    def _structure(self, char: str, at: int) -> Iterator[Event]:
        awaits = self._awaits
        if awaits in {"value", "value or ]"}:
            if char == "]" and awaits == "value or ]":
                yield from self._close(char, at)
            else:
                yield from self._begin(char, at)
        elif awaits in {"key", "key or }"}:
            if char == "}" and awaits == "key or }":
                yield from self._close(char, at)
            elif char == '"':
                self._scalar, self._is_key, self._raw, self._size = "string", True, [], 0
            else:
                raise JsonError(at, f"{char!r} cannot stand where a key in double quotes is expected")
        elif awaits == ":":
            if char != ":":
                raise JsonError(at, f"{char!r} cannot stand where a colon is expected")
            self._awaits = "value"
        elif awaits == ", or end":
            if char == ",":
                self._awaits = "key" if self._stack[-1] == "{" else "value"
            elif char in "}]":
                yield from self._close(char, at)
            else:
                raise JsonError(at, f"{char!r} cannot stand where a comma or the end is expected")
        else:
            raise JsonError(at, "there is text after the end of the JSON")

    def _begin(self, char: str, at: int) -> Iterator[Event]:
        if char in "{[":
            if len(self._stack) >= MOST_DEPTH:
                raise JsonError(at, f"the JSON is nested more than {MOST_DEPTH} deep")
            self._stack.append(char)
            self._keys.append(set())
            self._awaits = "key or }" if char == "{" else "value or ]"
            yield Event("begin", at, "object" if char == "{" else "array")
        elif char == '"':
            self._scalar, self._is_key, self._raw, self._size = "string", False, [], 0
            yield Event("begin", at, "string")
        elif char == "-" or char in "0123456789":
            self._scalar, self._raw = "number", [char]
            yield Event("begin", at, "number")
        elif char in _LITERALS:
            self._scalar, self._raw = "literal", [char]
            yield Event("begin", at, _LITERALS[char])  # type: ignore[arg-type]
        else:
            raise JsonError(at, f"{char!r} cannot begin a JSON value")

    def _close(self, char: str, at: int) -> Iterator[Event]:
        if (char == "}") != (self._stack[-1] == "{"):
            raise JsonError(at, f"{char!r} does not close what is open")
        kind: Kind = "object" if self._stack.pop() == "{" else "array"
        self._keys.pop()
        self._over()
        yield Event("end", at, kind)

    def _over(self) -> None:
        """A value is complete."""
        self._awaits = ", or end" if self._stack else "nothing"
        self.done = not self._stack

    # -- scalars

    def _string(self, text: str, at: int) -> Generator[Event, None, int]:
        start = at
        while at < len(text):
            if self._escape:
                at = self._escaped(text, at)
                continue
            end = _PLAIN.match(text, at).end()  # type: ignore[union-attr]
            self._raw.append(text[at:end])
            self._size += end - at
            at = end
            if at >= len(text):
                break
            char = text[at]
            at += 1
            if char == '"':
                yield from self._string_over(self._at + at - 1)
                return at
            if char != "\\":
                raise JsonError(self._at + at - 1, "a control character must be escaped in a string")
            self._escape = "\\"
        if at > start:
            yield Event("grown", self._at + at - 1, "string", "" if self._escape else self._so_far(), self._is_key)
        return at

    def _escaped(self, text: str, at: int) -> int:
        char = text[at]
        if self._escape == "\\":
            if char == "u":
                self._escape = "\\u"
            elif char in _ESCAPES:
                self._raw.append("\\" + char)
                self._escape = ""
            else:
                raise JsonError(self._at + at, f"\\{char} is no escape of JSON")
            return at + 1
        if char not in _HEX:
            raise JsonError(self._at + at, "\\u needs four hexadecimal digits")
        self._escape += char
        if len(self._escape) == 6:
            self._raw.append(self._escape)
            self._escape = ""
        return at + 1

    def _so_far(self) -> str:
        """A text as it stands; empty for one that is long or has escapes, which is looked at once it is whole."""
        if self._size > MOST_GROWN:
            return ""
        raw = "".join(self._raw)
        self._raw = [raw]
        return raw if "\\" not in raw else ""

    def _string_over(self, at: int) -> Iterator[Event]:
        raw = "".join(self._raw)
        value = raw if "\\" not in raw else json.loads(f'"{raw}"')
        self._scalar = ""
        self._raw = []
        if not self._is_key:
            self._over()
            yield Event("value", at, "string", value, value)
            return
        if value in self._keys[-1]:
            raise JsonError(at, f"the key {value[:60]!r} is there twice")
        self._keys[-1].add(value)
        self._awaits = ":"
        yield Event("key", at, None, value)

    def _number(self, text: str, at: int) -> Generator[Event, None, int]:
        end = _NUMBER_CHARS.match(text, at).end()  # type: ignore[union-attr]
        self._raw.append(text[at:end])
        raw = "".join(self._raw)
        self._raw = [raw]
        if len(raw) > MOST_NUMBER:
            raise JsonError(self._at + at, f"a number has more than {MOST_NUMBER} characters")
        begun = _NUMBER_BEGUN.match(raw)
        good = begun.end() if begun else 0
        if good < len(raw):
            raise JsonError(self._at + end - (len(raw) - good), f"{raw[: good + 1]!r} is no number of JSON")
        if end == len(text):
            return end
        if not _NUMBER.fullmatch(raw):
            raise JsonError(self._at + end, f"{raw!r} is no complete number")
        self._scalar, self._raw = "", []
        self._over()
        yield Event("value", self._at + end, "number", raw, number(raw))  # what ends it tells that it is whole
        return end

    def _literal(self, text: str, at: int) -> Generator[Event, None, int]:
        word = _LITERALS[self._raw[0][0]]
        have = "".join(self._raw)
        while at < len(text) and len(have) < len(word):
            if text[at] != word[len(have)]:
                raise JsonError(self._at + at, f"{have + text[at]!r} is no value of JSON; {word} is")
            have += text[at]
            at += 1
        self._raw = [have]
        if len(have) == len(word):
            self._scalar, self._raw = "", []
            self._over()
            yield Event("value", self._at + at - 1, word, word, json.loads(word))  # type: ignore[arg-type]
        return at


def number(raw: str) -> int | float:
    """The value of a JSON number; what is too large is infinite."""
    return float(raw) if any(char in raw for char in ".eE") else int(raw)
