"""What is masked: compiled patterns, those that are built in, and how far a pattern may still reach."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

Check: TypeAlias = Callable[[str], int]
"""How many characters of a match are really one, counted from its start; 0 if it is none."""


class Match(Protocol):
    def start(self) -> int: ...

    def end(self) -> int: ...


class Pattern(Protocol):
    """The part of a pattern of the `regex` package that is used here."""

    def search(
        self, string: str, pos: int = ..., *, partial: bool = ..., timeout: float | None = ...
    ) -> Match | None: ...

    def match(self, string: str, pos: int = ..., *, timeout: float | None = ...) -> Match | None: ...


class Found(NamedTuple):
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of secret and what stands in its place."""

    name: str
    replacement: str
    pattern: Pattern
    reach: Pattern
    """The pattern, then one more character, then failure: a partial match of it starts where a match may still grow."""
    check: Check | None = None
    timeout_s: float | None = None
    """Longest time for one search; `TimeoutError` beyond it."""

    def find(self, text: str, start: int, before: int) -> Found | None:
        """The first match that starts in `[start, before)`."""
        while start < before:
            match = self.pattern.search(text, start, timeout=self.timeout_s)
            if match is None or match.start() >= before:
                return None
            if end := self._end(text, match):
                return Found(match.start(), end)
            start = match.start() + 1
        return None

    def find_at(self, text: str, start: int) -> Found | None:
        """The match that starts right here."""
        match = self.pattern.match(text, start, timeout=self.timeout_s)
        end = self._end(text, match) if match is not None else 0
        return Found(start, end) if end else None

    def open_from(self, text: str, start: int) -> int:
        """Where the first match starts that more text may make, change or prolong; `len(text)` if there is none.

        Everything before is settled, whatever follows.
        """
        match = self.reach.search(text, start, partial=True, timeout=self.timeout_s)
        return len(text) if match is None else match.start()

    def _end(self, text: str, match: Match) -> int:
        start, end = match.start(), match.end()
        if self.check is not None:
            end = start + self.check(text[start:end])
        return end if end > start else 0


_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?>|\(\?|(?P<times>[*+?]|\{[0-9]*,?[0-9]*\})[+?]?|.", re.DOTALL)
_ASKS_FOR_END = {
    # Asked at the end of an unfinished text, these want one more character instead of answering.
    **{token: rf"(?:\Z(?s:.)|{token})" for token in (r"\b", r"\B", r"\m", r"\M", r"\Z", r"\z")},
    "$": r"(?:\n?\Z(?s:.)|$)",
    # The engine forgets some partial matches of atomic groups.
    "(?>": "(?:",
}
_UNSUPPORTED = re.compile(r"\(\?(?:R|[0-9]+)\)|\{[^{}]*[<=][^{}]*\}")


def compile_rule(
    name: str, pattern: str, replacement: str, *, check: Check | None = None, timeout_s: float | None = None
) -> Rule:
    """Raises `ValueError` that names the rule and says what is wrong with its pattern."""
    try:
        import regex  # type: ignore[import-untyped]
    except ImportError as exc:
        raise ValueError("the plugin `redact` needs the package `regex`: pip install 'predawn[redact]'") from exc
    tokens = list(_TOKEN.finditer(pattern))
    odd = next((token[0] for token in tokens if token[0] in (r"\G", r"\K", r"\X", r"\R")), None)
    if odd or (match := _UNSUPPORTED.search(pattern)):
        raise ValueError(f"pattern {name!r} uses {odd or match[0]}, which cannot be followed across chunks")  # type: ignore[index]
    try:
        compiled: Any = regex.compile(pattern)
        end = "\n)" if compiled.flags & regex.VERBOSE else ")"  # a verbose pattern may end in a comment
        reach: Any = regex.compile("(?:" + "".join(map(_reaching, tokens)) + end + "(?s:.)(?!)")
    except regex.error as exc:
        raise ValueError(f"pattern {name!r} is not a regular expression: {exc}") from exc
    if compiled.search("") is not None:
        raise ValueError(f"pattern {name!r} matches the empty text; make it match at least one character")
    return Rule(name, replacement, compiled, reach, check, timeout_s)


def _reaching(token: re.Match[str]) -> str:
    """A token of a pattern as its `reach` has it; quantifiers are greedy there, which takes the same paths."""
    return token["times"] or _ASKS_FOR_END.get(token[0], token[0])


def longest_valid(text: str, is_valid: Callable[[str], bool]) -> int:
    """Length of the longest prefix that ends at a word's end and is valid without spaces and hyphens."""
    for end in range(len(text), 0, -1):
        at_word_end = end == len(text) or not text[end].isalnum()
        if at_word_end and text[end - 1].isalnum() and is_valid(text[:end].replace(" ", "").replace("-", "")):
            return end
    return 0


def is_luhn(digits: str) -> bool:
    """Check digit of payment cards (ISO/IEC 7812-1)."""
    if not 13 <= len(digits) <= 19:
        return False
    doubled = [int(digit) * (2 if place % 2 else 1) for place, digit in enumerate(reversed(digits))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def is_iban(letters: str) -> bool:
    """Check digits of account numbers (ISO 13616): the rearranged number is 1 modulo 97."""
    if not 15 <= len(letters) <= 34:
        return False
    return int("".join(str(int(letter, 36)) for letter in letters[4:] + letters[:4])) % 97 == 1


class BuiltIn(NamedTuple):
    pattern: str
    check: Check | None = None


BUILT_IN = {
    # Bounded everywhere: a match never exceeds the smallest window that the settings should choose.
    "email": BuiltIn(r"[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,40}\.){1,4}[A-Za-z]{2,24}"),
    "phone": BuiltIn(
        r"(?<![\w+])\+[0-9]{1,3}(?:[ .()/-]{0,2}[0-9]){6,13}(?![0-9])"
        r"|(?<![0-9])(?:\([0-9]{3}\) ?|[0-9]{3}[-. ])[0-9]{3}[-. ][0-9]{4}(?![0-9])"
    ),
    "credit_card": BuiltIn(r"(?<![0-9])[2-6](?:[ -]?[0-9]){12,18}(?![0-9])", lambda text: longest_valid(text, is_luhn)),
    "iban": BuiltIn(
        r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?(?![A-Za-z0-9])",
        lambda text: longest_valid(text, is_iban),
    ),
    "api_key": BuiltIn(
        r"(?<![A-Za-z0-9])(?:(?:sk|pk|rk)[-_][A-Za-z0-9_-]{16,200}|gh[opusr]_[A-Za-z0-9]{36,200}"
        r"|github_pat_[A-Za-z0-9_]{22,200}|glpat-[A-Za-z0-9_-]{20,200}|xox[abprs]-[A-Za-z0-9-]{10,200}"
        r"|AKIA[A-Z0-9]{16}|AIza[A-Za-z0-9_-]{35}|hf_[A-Za-z0-9]{30,200})"
    ),
}
