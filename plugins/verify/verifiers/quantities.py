"""Quantities that are followed through a text: `Bob is Ann + 4`, and `she has 10, gives 3 away, and has 7 left`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from predawn.plugins.verify.verifiers.expressions import Sense, side_before
from predawn.plugins.verify.verifiers.numerals import NUMBER as NUMERAL
from predawn.plugins.verify.verifiers.numerals import Number, number_of, whole, written
from predawn.plugins.verify.verifiers.tokens import Token, tokens_of
from predawn.plugins.verify.verifiers.units import NO_UNIT, head
from predawn.plugins.verify.verifiers.vocabulary import words_of

_NAME = r"[A-Za-z][A-Za-z]{1,24}(?:[ _][A-Za-z]{1,24}){0,2}"
_VALUE = re.compile(
    rf"\W*(?:(?:So|Thus|Then|Therefore|Now|Hence|Wait|Step \d+)[:,]? )?({_NAME}) ?= ?"
    r"([$€£]?[\d.,]{1,20})(?: [a-z]{2,20})?\W*\Z"
)
_RELATION = re.compile(
    rf"\W*(?:(?:So|Thus|Then|Since|Wait|Step \d+)[:,]? )?({_NAME}) ?(?:=| is) ?"
    r"([^=]{3,80}?)(?: ?= ?([$€£]?[\d.,]{1,20})[ a-z]{0,20})?[.;!]?\s*\Z"
)
_IN_EXPRESSION = re.compile(_NAME)
_WORDS_ONLY = re.compile(r"(?:is|are|has|have|the|and|not|more|than|of|a|an|times|twice|half)\Z")
MOST_NAMES = 200


@dataclass(frozen=True, slots=True)
class Slip:
    """A quantity that is not what follows from what was said."""

    text: str
    because: str
    shown: Number
    start: int
    result: tuple[int, int]
    """Where the quantity stands in its sentence."""
    value: Fraction

    @property
    def right_result(self) -> str:
        return written(self.value, self.shown)


class Named:
    """Names with their numbers, and how numbers follow from others, as a text goes on saying it."""

    __slots__ = ("_relations", "_values")

    def __init__(self) -> None:
        self._values: dict[str, Fraction] = {}
        self._relations: dict[str, str] = {}

    def read(self, sentence: str) -> Slip | None:
        """Take a sentence in; returns what does not follow from the sentences before."""
        if "=" not in sentence and not any(sign in sentence for sign in "+-*/"):
            return None
        if len(sentence) > 200 or len(self._values) > MOST_NAMES or len(self._relations) > MOST_NAMES:
            return None
        if match := _VALUE.match(sentence):
            return self._told(match[1], match, 2)
        match = _RELATION.match(sentence)
        if match is None or not any(sign in match[2] for sign in "+-*/") or not _names(match[2]):
            return None
        self._relations[match[1]] = match[2]
        return self._told(match[1], match, 3) if match[3] else None

    def _told(self, name: str, match: re.Match[str], group: int) -> Slip | None:
        told = match[group].rstrip(".,")
        number = _number(told)
        if number is None:
            return None
        relation = self._relations.pop(name, "")
        expected = worked_out(relation, self._values) if relation else None
        self._values[name] = number.value
        if expected is None or _fits(expected, number):
            return None
        start = match.start(group)
        because = f"{name} is {relation.strip()}, which is {written(expected, number)}"
        return Slip(f"{name} = {told}", because, number, match.start(1), (start, start + len(told)), expected)


def _number(text: str) -> Number | None:
    match = NUMERAL.fullmatch(text)
    return number_of(match) if match else None


def _fits(expected: Fraction, shown: Number) -> bool:
    if expected == shown.value:
        return True
    return bool(shown.decimals) and abs(expected - shown.value) < shown.resolution


def _names(expression: str) -> list[str]:
    """The names in an expression; none if it says more than an expression can."""
    names = [match[0] for match in _IN_EXPRESSION.finditer(expression)]
    words = {word.lower() for name in names for word in name.split()}
    return [] if words & NO_UNIT or any(_WORDS_ONLY.match(word) for word in words) else names


def worked_out(expression: str, values: Mapping[str, Fraction]) -> Fraction | None:
    """What an expression of names and numbers comes to; `None` where a name has no value."""
    tokens: list[Token] = []
    at = 0
    for match in _IN_EXPRESSION.finditer(expression):
        if match[0] not in values:
            return None
        tokens += tokens_of(expression[at : match.start()])
        tokens.append(Token("number", match[0], match.start(), match.end(), whole(values[match[0]], match[0])))
        at = match.end()
    tokens += tokens_of(expression[at:].rstrip(" .;!,"))
    side = side_before(tokens, len(tokens))
    if side is None or len(side.parts) != len(tokens):
        return None
    return side.value(Sense())


_STARTS = words_of("has had have starts started start begins began with are were was there holds contains")
_PLUS = words_of(
    "gets got buys bought receives received finds found adds added add earns earned gains gained collects collected "
    "picks picked plus another buy get receive find earn bakes baked makes"
)
_MINUS = words_of(
    "gives gave loses lost eats ate sells sold spends spent uses used removes removed breaks broke minus drops dropped "
    "donates donated throws threw give lose eat sell spend use remove away subtract"
)
_RESULT_BEFORE = words_of("leaving leaves now total making remain")
_RESULT_AFTER = words_of("left remaining remain remains altogether")
_FORBIDDEN = words_of(
    "each every per times twice half double triple third quarter dozen percent than if would could should not never no "
    "about nearly almost hour hours day days week weeks minute minutes year years per given between or of at for her "
    "him them me us whether another's first second third last costs cost price ago aged old who whose"
)
_SPLIT = re.compile(r"(?<=[.!;])\s+|\n")


@dataclass(frozen=True, slots=True)
class _Move:
    number: Token
    kind: str
    """`start`, `+`, `-` or `result`."""


def running_slip(before: str, sentence: str) -> Slip | None:
    """What is wrong with the result that `sentence` gives for a quantity it, or the few sentences before, follow."""
    if len(sentence) > 300 or not any(
        word in sentence.lower() for word in ("lea", "left", "remain", "now", "total", "altogether")
    ):
        return None
    earlier = [part for part in _SPLIT.split(before.rpartition("\n\n")[2][-400:]) if part.strip()][-3:]
    for count in range(len(earlier) + 1):
        context = " ".join(earlier[len(earlier) - count :]) + " " if count else ""
        moves = _moves(context + sentence)
        if moves is not None and any(move.kind == "result" for move in moves[1:]) and moves[0].kind == "start":
            return _followed(moves, len(context), sentence)
    return None


def _followed(moves: list[_Move], offset: int, sentence: str) -> Slip | None:
    value = Fraction(0)
    changes: list[str] = []
    for move in moves:
        number = move.number.number
        assert number is not None
        if move.kind == "result":
            if changes[1:] and value != number.value and move.number.start >= offset:
                result = (move.number.start - offset, move.number.start - offset + len(number.text))
                because = f"{' '.join(changes)} = {written(value, number)}"
                return Slip(sentence[: result[1]].strip()[-60:], because, number, 0, result, value)
            value, changes = number.value, [number.text]
        elif move.kind == "start":
            value, changes = number.value, [number.text]
        else:
            value += number.value if move.kind == "+" else -number.value
            changes += [move.kind, number.text]
    return None


def _moves(text: str) -> list[_Move] | None:
    """What is done with each number; `None` if anything in the text may be of another kind."""
    tokens = tokens_of(text)
    words = [token.text.lower() for token in tokens if token.kind == "word"]
    if set(words) & _FORBIDDEN or any(
        token.kind in {"poison", "relation"} or token.text in {"%", "?"} for token in tokens
    ):
        return None
    if any(token.kind == "sign" for token in tokens) or not _one_person(tokens):
        return None
    places = [at for at, token in enumerate(tokens) if token.number is not None]
    if len({unit for at in places if (unit := _unit(tokens, at))}) > 1:
        return None
    moves: list[_Move] = []
    for previous, at in zip([-1, *places], places, strict=False):
        kind = _kind(tokens, previous, at, is_first=not moves)
        if kind is None or (kind == "start" and moves):
            return None
        moves.append(_Move(tokens[at], kind))
    return moves


def _one_person(tokens: list[Token]) -> bool:
    """At most one name acts; others may only be given something."""
    names: set[str] = set()
    for at, token in enumerate(tokens):
        is_name = token.kind == "word" and token.text[0].isupper() and token.text.lower() not in _PRONOUNS
        if is_name and not (at and tokens[at - 1].text.lower() in {"to", "with", "from"}):
            names.add(token.text)
    return len(names - _OPENERS) <= 1


_PRONOUNS = words_of("she he they i it we you")
_OPENERS = words_of("Then After Next So Now There The Finally Later First That This And")


def _unit(tokens: list[Token], at: int) -> str:
    words = []
    for token in tokens[at + 1 : at + 3]:
        if token.kind != "word" or token.text.lower() in NO_UNIT | _MINUS | _PLUS | _RESULT_AFTER | {"in", "more"}:
            break
        words.append(token.text)
    return head(words)


def _kind(tokens: list[Token], previous: int, at: int, *, is_first: bool) -> str | None:
    before = [token.text.lower() for token in tokens[previous + 1 : at] if token.kind == "word"]
    after = [token.text.lower() for token in _until_stop(tokens, at + 1)]
    near = before[-4:]
    if is_first:
        return "start" if set(near) & _STARTS or not before else None
    if (
        set(near) & _RESULT_BEFORE
        or set(after[:4]) & _RESULT_AFTER
        or after[:2] == ["in", "total"]
        or after[1:3] == ["in", "total"]
    ):
        return "result"
    plus, minus = bool(set(near) & _PLUS), bool(set(near) & _MINUS or after[:1] == ["away"])
    if plus == minus:
        return None
    return "+" if plus else "-"


def _until_stop(tokens: list[Token], at: int) -> Iterator[Token]:
    while at < len(tokens) and tokens[at].kind == "word":
        yield tokens[at]
        at += 1
