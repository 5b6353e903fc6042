"""One side of an equation: found among tokens, read by descent, and worked out exactly in each sense it may have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import takewhile
from typing import Literal, TypeAlias

from predawn.plugins.verify.verifiers.numerals import Number
from predawn.plugins.verify.verifiers.tokens import Token
from predawn.plugins.verify.verifiers.units import FUNCTIONS, NO_UNIT, RATES, factor, head, singular
from predawn.plugins.verify.verifiers.vocabulary import words_of

Percent: TypeAlias = Literal["part", "relative", "plain"]
"""50 % as a half, `80 + 10 %` as 88, or the number 50 with a sign behind it."""
MOST_TOKENS = 80
MOST_POWER = 64
MOST_UNIT_WORDS = 6
_LEVELS = ({"+": "+", "-": "-", "&": "+"}, {"*": "*", "/": "/", "of": "*"})


class UnreadableError(Exception):
    """Not plain arithmetic."""


@dataclass(frozen=True, slots=True)
class Sense:
    """One way to read what can be read in several."""

    percent: Percent = "part"
    dotted: bool = False
    """`1.500` is fifteen hundred."""
    converted: bool = False
    """Minutes and hours are brought to one unit."""


@dataclass(frozen=True, slots=True)
class Side:
    """Numbers and signs of one side, with the unit behind each number."""

    parts: tuple[Token, ...]
    units: tuple[str, ...]
    """Of each part; empty where it has none."""
    start: int
    end: int
    tail: frozenset[str] = frozenset()
    """Words after the last number, one of which may be its unit."""
    letters: int = 0
    """Numbers with a single letter behind them: units, or variables."""

    @property
    def numbers(self) -> list[Number]:
        return [part.number for part in self.parts if part.number is not None]

    @property
    def single(self) -> Number | None:
        """The number, if that is all there is."""
        return self.parts[0].number if len(self.parts) == 1 else None

    @property
    def signs(self) -> set[str]:
        return {part.text[0] if part.text != "of" else "of" for part in self.parts if part.number is None}

    @property
    def is_worked(self) -> bool:
        """True if there is something to work out."""
        return len(self.numbers) > 1 or any(part.text.startswith("^") for part in self.parts)

    @property
    def named_units(self) -> set[str]:
        return {unit for unit in self.units if unit}

    def value(self, sense: Sense) -> Fraction | None:
        """What it comes to; `None` where it cannot be read, or is divided by 0."""
        try:
            return _Reader(self, sense).read()
        except (UnreadableError, ZeroDivisionError):
            return None


def side_before(tokens: Sequence[Token], relation: int) -> Side | None:
    """The side that ends where a relation stands; `None` if there is none, or it cannot be read."""
    at = relation - 1
    open_brackets = 0
    while at >= 0:
        token = tokens[at]
        if token.text == ")" and token.kind == "sign":
            open_brackets += 1
        elif token.text == "(" and token.kind == "sign":
            if not open_brackets:
                break
            open_brackets -= 1
        elif token.kind == "word":
            words = _run_back(tokens, at)
            if tokens[at + 1 : at + 2] and tokens[at + 1].kind == "number":
                if _is_compound(tokens, at - len(words)):
                    return None
                break
            if not _is_unit(tokens, at - len(words) + 1, words):
                break
            at -= len(words)
            continue
        elif token.kind not in {"number", "sign"}:
            break
        at -= 1
    before = tokens[at] if at >= 0 else None
    first = at + 1
    if open_brackets or first >= relation or (before is not None and _spoils(before, tokens[first])):
        return None
    if (
        before is not None
        and before.text.lower() == "of"
        and at
        and tokens[at - 1].kind in {"number", "poison", "sign"}
    ):
        return None  # `3 of 4`
    return _side(tokens[first:relation])


def _spoils(before: Token, first: Token) -> bool:
    """What stands before a side makes another thing of it: a variable, a function, another number's tail."""
    if before.kind == "poison":
        return True
    if first.kind == "sign" and first.text not in "-(":
        return True
    if first.text == "-" and before.kind in {"word", "relation"}:
        return before.kind == "word"
    if before.kind == "word":
        return before.text.lower() in FUNCTIONS
    return False


def side_after(tokens: Sequence[Token], at: int) -> Side | None:
    """The side that begins at `at`; `None` if there is none, or what follows makes another thing of it."""
    start = at
    depth = 0
    while at < len(tokens):
        token = tokens[at]
        if token.kind == "number":
            at += 1
        elif token.kind == "sign":
            if token.text == "(" and at + 1 < len(tokens) and tokens[at + 1].kind == "word" and at > start:
                if token.start == tokens[at - 1].end:
                    return None  # `2(s + 16)`
                break
            depth += (token.text == "(") - (token.text == ")")
            if depth < 0:
                break
            if token.text == "/" and at + 1 < len(tokens) and tokens[at + 1].kind == "word":
                at += 1  # `30 miles/hour`
            at += 1
        elif token.kind == "word" and at > start:
            words = _run(tokens, at)
            if not words:
                break
            end = at + len(words)
            goes_on = end < len(tokens) and tokens[end].kind == "sign" and tokens[end].text not in "()"
            if not goes_on:
                break
            if not _is_unit(tokens, at, words):
                return None
            at = end
        else:
            break
    if at == start or depth > 0 or (at < len(tokens) and _changes(tokens, at)):
        return None
    glued = (
        at < len(tokens)
        and tokens[at].kind == "word"
        and len(tokens[at].text) == 1
        and tokens[at].start == tokens[at - 1].end
    )
    return _side(tokens[start:at], _run(tokens, at), glued_tail=glued)


def _changes(tokens: Sequence[Token], at: int) -> bool:
    """What follows a side makes another thing of it: a remainder, another base, a further factor."""
    token = tokens[at]
    if token.kind == "poison":
        return True
    if token.kind == "number" or (token.kind == "sign" and token.text not in "()"):
        return True
    if token.text == "!" and at + 1 < len(tokens):
        return tokens[at + 1].kind == "sign"
    words = [t.text.lower() for t in takewhile(lambda t: t.kind == "word" or t.text == "(", tokens[at : at + 6])]
    if at and _is_compound(tokens, at - 1):
        return True
    compares = words[:1] == ["times"] and set(words[1:2]) & _COMPARED
    after = tokens[at + 1] if at + 1 < len(tokens) else None
    shares = words[:1] == ["of"] and after is not None and (after.kind == "number" or after.text.lower() in _WHOLES)
    return bool(compares or shares or set(words) & _OTHER_SENSE)


def _is_compound(tokens: Sequence[Token], at: int) -> bool:
    """A quantity in two units begins there: `2 hours 30 minutes`, `5 feet 3 inches`."""
    kinds = [token.kind for token in tokens[max(at, 0) : at + 4]]
    if at < 0 or kinds != ["number", "word", "number", "word"]:
        return False
    units = [factor(singular(tokens[place].text.lower())) for place in (at + 1, at + 3)]
    return all(unit is not None for unit in units)


_COMPARED = words_of("as more less fewer smaller bigger larger greater higher lower faster slower the that what longer")
_BETWEEN = words_of("for from with on at in to by")
_WHOLES = words_of("them these those the these all every")
_OTHER_SENSE = words_of("remainder r rem mod modulo binary hex octal base clock")


def _run_back(tokens: Sequence[Token], at: int) -> list[str]:
    words: list[str] = []
    while at >= 0 and tokens[at].kind == "word" and len(words) < MOST_UNIT_WORDS + 1:
        words.insert(0, tokens[at].text)
        at -= 1
    return words


def _run(tokens: Sequence[Token], at: int) -> list[str]:
    """Up to three words that may name what is counted."""
    words: list[str] = []
    for token in tokens[at : at + 3]:
        if token.kind != "word" or (token.text.lower() in NO_UNIT and token.text.lower() != "by"):
            break
        words.append(token.text)
    return words


def _is_unit(tokens: Sequence[Token], start: int, words: Sequence[str]) -> bool:
    """Words between a number and a sign or relation say what is counted, and nothing else."""
    after_number = start > 0 and (
        tokens[start - 1].kind == "number" or tokens[start - 1].text == ")" or tokens[start - 1].text.startswith("^")
    )
    rate = start > 0 and tokens[start - 1].text == "/"
    lower = [word.lower() for word in words]
    inner = {*lower[:1], *lower[-1:], *(word for word in lower[1:-1] if word not in _BETWEEN)}
    if not (after_number or rate) or not 0 < len(words) <= MOST_UNIT_WORDS or inner & NO_UNIT:
        return False
    if rate:
        again = sum(singular(token.text.lower()) == singular(lower[0]) for token in tokens if token.kind == "word")
        return lower[0] in RATES or again > 1 or (start > 1 and tokens[start - 2].kind == "word")
    if any(len(word) == 1 and factor(word) is None for word in lower):
        return False
    return not any(word[0].isupper() and len(word) > 1 and not word.isupper() for word in words)


def _side(tokens: Sequence[Token], tail: Sequence[str] = (), *, glued_tail: bool = False) -> Side | None:
    if len(tokens) > MOST_TOKENS:
        return None
    parts: list[Token] = []
    units: list[str] = []
    words: list[str] = []
    letters = int(glued_tail)
    for at, token in enumerate(tokens):
        if token.kind == "word":
            words.append(token.text)
            letters += (
                len(token.text) == 1
                and at > 0
                and tokens[at - 1].kind == "number"
                and tokens[at - 1].end == token.start
            )
            continue
        if token.text == "/" and at + 1 < len(tokens) and tokens[at + 1].kind == "word":
            words.append("per")
            continue
        if words and parts:
            units[-1] = head(list(takewhile(lambda word: word not in {"per", "a", "each"}, words))) or units[-1]
        words = []
        parts.append(token)
        units.append(_own_unit(token))
    if words and parts:
        units[-1] = head(list(takewhile(lambda word: word not in {"per", "a", "each"}, words))) or units[-1]
    if not any(part.number is not None for part in parts):
        return None
    if tail:
        nouns = [singular(word.lower()) for word in tail]
        known = [noun for noun in nouns if factor(noun) is not None]
        units[-1] = units[-1] or (known or nouns)[0]
        return Side(tuple(parts), tuple(units), parts[0].start, parts[-1].end, frozenset(nouns), letters)
    return Side(tuple(parts), tuple(units), parts[0].start, parts[-1].end, letters=letters)


def _own_unit(token: Token) -> str:
    """The unit that a number brings along: its currency, or letters glued to it."""
    return token.number.currency if token.number is not None else ""


class _Reader:
    """Recursive descent; its depth is bounded by the number of parts."""

    __slots__ = ("_at", "_parts", "_sense", "_units")

    def __init__(self, side: Side, sense: Sense) -> None:
        self._parts = side.parts
        self._units = side.units
        self._sense = sense
        self._at = 0

    def read(self) -> Fraction:
        value = self._sum()
        if self._at != len(self._parts):
            raise UnreadableError
        return value

    def _sign(self) -> str:
        if self._at < len(self._parts) and self._parts[self._at].number is None:
            return self._parts[self._at].text
        return ""

    def _sum(self) -> Fraction:
        value = self._product()
        while (sign := _LEVELS[0].get(self._sign())) is not None:
            self._at += 1
            is_share = self._sense.percent == "relative" and self._is_percent(self._at)
            other = self._product()
            if is_share:
                other *= value
            value = value + other if sign == "+" else value - other
        return value

    def _is_percent(self, at: int) -> bool:
        return at < len(self._parts) and (number := self._parts[at].number) is not None and number.is_percent

    def _product(self) -> Fraction:
        value = self._power()
        while True:
            sign = _LEVELS[1].get(self._sign())
            if sign is not None:
                self._at += 1
            elif self._sign() == "(":
                sign = "*"
            else:
                return value
            other = self._power()
            value = value * other if sign == "*" else value / other

    def _power(self) -> Fraction:
        if self._sign() == "-":
            self._at += 1
            return -self._power()
        base = self._factor()
        sign = self._sign()
        if sign in {"^", "**"}:
            self._at += 1
            return _raised(base, self._power())
        if sign.startswith("^"):
            self._at += 1
            return _raised(base, Fraction(int(sign[1:])))
        return base

    def _factor(self) -> Fraction:
        if self._at >= len(self._parts):
            raise UnreadableError
        part, unit = self._parts[self._at], self._units[self._at]
        self._at += 1
        if part.number is not None:
            return self._worth(part.number, unit)
        if part.text != "(":
            raise UnreadableError
        value = self._sum()
        if self._sign() != ")":
            raise UnreadableError
        self._at += 1
        return value

    def _worth(self, number: Number, unit: str) -> Fraction:
        value = number.value
        if self._sense.dotted and number.dotted:
            value *= 1000
        if number.is_percent and self._sense.percent != "plain":
            value /= 100
        if self._sense.converted and (known := factor(unit)) is not None:
            value *= known[1]
        return value


def _raised(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1 or abs(exponent) > MOST_POWER or base.numerator.bit_length() > 128:
        raise UnreadableError
    if not base and exponent < 0:
        raise ZeroDivisionError
    return base ** int(exponent)
