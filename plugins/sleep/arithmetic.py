"""Equations between numbers, found in prose and checked exactly. Nothing is evaluated but + - * / and brackets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n|,(?=\s)")
_BULLET = re.compile(r"^\s*(?:[-*•]|\d{1,3}[.)])\s+")
_TIMES = re.compile(r"(?<=\d)\s*[x×·✕]\s*(?=[$€£]?\d)")  # noqa: RUF001 - the signs that people write
_RUN = re.compile(r"[\d\s+\-*/÷−().,$€£=]{3,400}")  # noqa: RUF001
_TOKEN = re.compile(r"\s*(?:([$€£]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[$€£]?\.\d+)|([-+*/()]))")
_UNIT = re.compile(r"%|percent|per cent|thousand|million|billion|dozen", re.IGNORECASE)
"""What changes the number that stands before it."""
_SIGNS = str.maketrans({"÷": "/", "−": "-"})  # noqa: RUF001
MOST_DIGITS = 30
MOST_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Equation:
    """Two sides as written, and whether they are equal; a decimal result may be rounded to the digits it shows."""

    text: str
    holds: bool


def equations(text: str) -> list[Equation]:
    """Every equation in `text` whose two sides are plain arithmetic, in order. What cannot be read is left out."""
    return [found for part in _parts(text) for found in _in_part(part)]


def wrong_equations(text: str) -> list[str]:
    """The equations of `text` that do not hold."""
    return [equation.text for equation in equations(text) if not equation.holds]


def value_of(expression: str) -> Fraction | None:
    """What an expression of numbers, + - * / and brackets comes to; `None` for everything else, division by 0 too."""
    tokens = _tokens(expression)
    if not tokens or len(tokens) > MOST_TOKENS:
        return None
    try:
        return _Reader(tokens).read()
    except (_UnreadableError, ZeroDivisionError):
        return None


def _parts(text: str) -> Iterator[str]:
    for line in text.splitlines():
        plain = _TIMES.sub(" * ", _BULLET.sub("", line))
        yield from (_BULLET.sub("", part) for part in _SENTENCE.split(plain))


def _in_part(part: str) -> Iterator[Equation]:
    for run in _RUN.finditer(part):
        if "=" not in run[0]:
            continue
        sides = [side.strip().removesuffix(".").strip() for side in run[0].split("=")]
        before, after = part[: run.start()].rstrip(), part[run.end() :]
        if before and sides[0].startswith(("+", "-", "*", "/")):
            sides[0] = ""  # `total - 3 = 4`: what is taken from is not a number
        if _UNIT.match(after) or (after[:1].isalnum() and not run[0][-1:].isspace()):
            sides[-1] = ""
        for left, right in pairwise(sides):
            yield from _compared(left, right)


def _compared(left: str, right: str) -> Iterator[Equation]:
    values = value_of(left.translate(_SIGNS)), value_of(right.translate(_SIGNS))
    if values[0] is None or values[1] is None or not (_is_worked(left) or _is_worked(right)):
        return
    off = abs(values[0] - values[1])
    yield Equation(f"{left} = {right}", off <= max(_rounding(left), _rounding(right)))


def _is_worked(side: str) -> bool:
    return re.search(r"\d\)?\s*[-+*/÷−]", side) is not None  # noqa: RUF001


def _rounding(side: str) -> Fraction:
    """Half a unit of the last decimal that a side of one number shows; an expression or a whole number is exact."""
    if _is_worked(side):
        return Fraction(0)
    decimals = len(side.rpartition(".")[2]) if "." in side else 0
    return Fraction(1, 2 * 10**decimals) if decimals else Fraction(0)


def _tokens(expression: str) -> list[str] | None:
    found: list[str] = []
    position = 0
    text = expression.strip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or len(match[0]) > MOST_DIGITS:
            return None
        found.append(match[1].lstrip("$€£").replace(",", "") if match[1] else match[2])
        position = match.end()
    return found


class _UnreadableError(Exception):
    """Not arithmetic."""


class _Reader:
    """Recursive descent; depth is bounded by the number of tokens."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = 0

    def read(self) -> Fraction:
        value = self._sum()
        if self._at != len(self._tokens):
            raise _UnreadableError
        return value

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _sum(self) -> Fraction:
        value = self._product()
        while (sign := self._peek()) in ("+", "-"):
            self._at += 1
            other = self._product()
            value = value + other if sign == "+" else value - other
        return value

    def _product(self) -> Fraction:
        value = self._factor()
        while (sign := self._peek()) in ("*", "/"):
            self._at += 1
            other = self._factor()
            value = value * other if sign == "*" else value / other
        return value

    def _factor(self) -> Fraction:
        piece = self._peek()
        self._at += 1
        if piece == "-":
            return -self._factor()
        if piece == "(":
            value = self._sum()
            if self._peek() != ")":
                raise _UnreadableError
            self._at += 1
            return value
        if not piece[:1].isdigit() and not piece.startswith("."):
            raise _UnreadableError
        return Fraction(piece)
