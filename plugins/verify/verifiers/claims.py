"""What a sentence claims: its figures, and what it puts between quotation marks."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from fractions import Fraction

from predawn.plugins.verify.verifiers.equations import equations, sentences
from predawn.plugins.verify.verifiers.numerals import Number
from predawn.plugins.verify.verifiers.slices import Breath, pieces_of
from predawn.plugins.verify.verifiers.tokens import Token, plain, tokens_of

_LIST_ITEM = re.compile(
    r"^\s*(?:[#>*-]+\s*)?(?:step|figure|fig\.|table|section|chapter|part|question|answer|option|note|item|no\.)?\s*\(?\d{1,3}[.):]\s",
    re.IGNORECASE,
)
_REFERENCE = re.compile(r"\[\d{1,3}(?:[,–-]\s?\d{1,3})*\]|\(\d{1,2}\)")  # noqa: RUF001
_PAIRS = (("“", "”"), ("«", "»"), ("„", "“"), ("‘", "’"))  # noqa: RUF001
LONGEST_QUOTE = 2_000


def claimed_numbers(before: str, text: str, ignore_up_to: int) -> Iterator[list[Number]]:
    """The figures that need a ground, sentence by sentence."""
    starts_line = not before.strip(" \t") or before.rstrip(" \t").endswith("\n")
    for start, sentence in sentences(_REFERENCE.sub(" ", plain(text))):
        item = _LIST_ITEM.match(sentence) if starts_line or start else None
        tokens = tokens_of(sentence[item.end() - 1 if item else 0 :])
        yield [number for token in tokens if (number := _figure(token, ignore_up_to)) is not None]


def _figure(token: Token, ignore_up_to: int) -> Number | None:
    number = token.number
    if number is None or not any(char in "0123456789" for char in token.text):
        return None  # in words, numbers count things more often than they claim
    is_plain = number.is_whole and not (number.is_percent or number.currency or number.decimals)
    return None if is_plain and abs(number.value) <= ignore_up_to else number


async def computed_numbers(text: str) -> AsyncIterator[Fraction]:
    """What right equations of a text come to."""
    breath = Breath()
    for piece in pieces_of(text):
        for _, sentence in sentences(plain(piece)):
            for equation in equations(sentence):
                if equation.holds:
                    yield equation.shown.value
            await breath()


def quotes_closed_in(before: str, text: str, min_words: int) -> Iterator[str]:
    """Quotes of the current paragraph that end in the step."""
    paragraph = before[max(before.rfind("\n"), len(before) - LONGEST_QUOTE - 1) + 1 :]
    whole, at = paragraph + text, len(paragraph)
    for inner, end in (*_straight(whole), *_curly(whole)):
        if end > at and len(inner.split()) >= min_words:
            yield inner


def _straight(text: str) -> Iterator[tuple[str, int]]:
    """Quotes between straight marks: one opens before a letter, closes behind one, and marks alternate in a line."""
    opened = -1
    for match in re.finditer(r'["\n]', text):
        at = match.start()
        if match[0] == "\n":
            opened = -1
        elif opened < 0:
            opens = at + 1 < len(text) and not text[at + 1].isspace() and (at == 0 or not text[at - 1].isalnum())
            opened = at if opens else -1
        else:
            if at - opened <= LONGEST_QUOTE:
                yield text[opened + 1 : at], at + 1
            opened = -1


def _curly(text: str) -> Iterator[tuple[str, int]]:
    for opening, closing in _PAIRS:
        at = text.find(opening)
        while at >= 0:
            end = text.find(closing, at + 1, at + LONGEST_QUOTE)
            while closing == "’" and 0 < end < len(text) - 1 and text[end + 1].isalnum():  # noqa: RUF001 - an apostrophe
                end = text.find(closing, end + 1, at + LONGEST_QUOTE)
            if end < 0:
                break
            yield text[at + 1 : end], end + 1
            at = text.find(opening, end + 1)
