"""What a conversation says, in a form in which figures and quotes can be looked up."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from fractions import Fraction

from predawn.plugins.verify.verifiers.numerals import NUMBER, SCALES, Number, number_of, spoken
from predawn.plugins.verify.verifiers.slices import Breath

PIECE = 2_000
_DIGITS = re.compile(r"\d{1,30}", re.ASCII)
_SCALE = re.compile(r"[ -]?(thousand|million|billion|trillion|dozen|k|m|bn|b)\b", re.IGNORECASE)
_OTHERWISE = re.compile(
    r"(?<![\d.,])(?:(?P<whole>\d{1,3}(?:[ .']\d{3}){1,4})|(?P<short>\d{1,12}))(?:,(?P<decimals>\d{1,6}))?(?![\d.,]*\d)",
    re.ASCII,
)
"""`1 234 567`, `12'345`, `2.500,75`, `0,75`."""
_HALF = re.compile(r"\bhalf a (hundred|thousand|million|billion|trillion|dozen)\b", re.IGNORECASE)
_LETTERS = {"k": 10**3, "m": 10**6, "b": 10**9, "bn": 10**9}
_WORD = re.compile(r"[a-z]+", re.IGNORECASE)
_GAP = re.compile(r"\[?(?:\.\.\.|…)\]?|\[[^\]]{0,60}\]")
_QUOTE_MARKS = str.maketrans(dict.fromkeys('"“”„‟«»‘’‚‛`´', "'"))  # noqa: RUF001
_NO_WORD = re.compile(r"[^\w%$€£']+")
_CARDINALS = re.compile(
    r"\b(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen|"
    r"(?:twen|thir|for|fif|six|seven|eigh|nine)ty)\b",
    re.IGNORECASE,
)


class Ground:
    """Read in slices on first use; after that look-ups cost microseconds."""

    __slots__ = ("_exact", "_is_ready", "_parts", "_read", "_rounded", "_text", "_words")

    def __init__(self, text: str) -> None:
        self._text = text
        self._words = ""
        self._exact: set[Fraction] = set()
        self._parts: set[int] = set()
        """Runs of digits, those of dates and codes among them."""
        self._rounded: list[Fraction] = []
        """The same in order, for what is rounded in the answer."""
        self._read = 0
        self._is_ready = False

    async def ready(self) -> None:
        """Read what is not read yet. Several may wait for it at a time."""
        breath = Breath()
        while self._read < len(self._text):
            self._take()
            await breath()
        if not self._is_ready:
            self._words = f" {await self._joined()} "
            self._rounded = sorted(self._exact)
            self._is_ready = True

    async def _joined(self) -> str:
        breath, pieces = Breath(), list[str]()
        for at in range(0, len(self._text), PIECE):
            pieces.append(self._text[at : at + PIECE].translate(_QUOTE_MARKS))
            await breath()
        text = "".join(pieces)
        words: list[str] = []
        at = 0
        while at < len(text):
            end = _word_end(text, at + PIECE)
            words.append(plain_words(text[at:end]))
            at = end
            await breath()
        return " ".join(word for word in words if word)

    def _take(self) -> None:
        start = self._read
        end = _word_end(self._text, start + PIECE)
        piece = _ascii_digits(self._text[start:end])
        for match in NUMBER.finditer(piece):
            self._add(piece, match)
        for match in _DIGITS.finditer(piece):
            self._parts.add(int(match[0]))
        for match in _CARDINALS.finditer(piece):
            words = [word.lower() for word in _WORD.findall(piece[match.start() : match.start() + 80])]
            if (value := spoken(words)) is not None:
                self._exact.add(value[0] * (12 if words[value[1] : value[1] + 1] == ["dozen"] else 1))
        for match in _HALF.finditer(piece):
            self._exact.add(Fraction(SCALES[match[1].lower()], 2))
        for match in _OTHERWISE.finditer(piece):
            if match["whole"] or match["decimals"]:
                digits = "".join(filter(str.isdigit, match["whole"] or match["short"]))
                self._exact.add(Fraction(f"{digits}.{match['decimals'] or 0}"))
        self._read = end

    def _add(self, piece: str, match: re.Match[str]) -> None:
        number = number_of(match)
        if number is None or _is_part(piece, *match.span()):
            return
        value = number.value
        self._exact.add(value)
        if (scale := _SCALE.match(piece, match.end())) is not None:
            word = scale[1].lower()
            self._exact.add(value * (_LETTERS.get(word) or SCALES[word]))

    def has_number(self, number: Number) -> bool:
        """Whether a figure occurs, as it is, as a share of a hundred, or rounded to the digits it shows."""
        value = abs(number.value)
        if value in self._exact:
            return True
        is_plain = number.is_whole and not (number.is_percent or number.currency or number.decimals)
        if is_plain and value.numerator in self._parts:
            return True
        if number.is_percent and value / 100 in self._exact:
            return True
        if not number.is_percent and number.decimals and value * 100 in self._exact:
            return True
        unit = number.resolution
        if number.is_percent and (self._is_rounded(value, unit) or self._is_rounded(value / 100, unit / 100)):
            return True
        return (bool(number.decimals) or number.is_rounded) and self._is_rounded(value, unit)

    def _is_rounded(self, value: Fraction, unit: Fraction) -> bool:
        at = bisect_left(self._rounded, value - unit / 2)
        while at < len(self._rounded) and self._rounded[at] <= value + unit / 2:
            if self._rounded[at] != value and (self._rounded[at] / unit).denominator != 1:
                return True
            at += 1
        return False

    def has_quote(self, quote: str) -> bool:
        """Whether a quote occurs; what is left out of it is marked by dots or brackets."""
        at = 0
        for part in _GAP.split(quote):
            words = plain_words(part)
            if not words:
                continue
            found = self._words.find(f" {words} ", at)
            if found < 0:
                return False
            at = found + len(words)
        return True


def plain_words(text: str) -> str:
    """Words alone: in lower case, without punctuation, one space between two."""
    folded = unicodedata.normalize("NFKC", text.translate(_QUOTE_MARKS)).casefold()
    words = (word.strip("'") for word in _NO_WORD.sub(" ", folded).split())
    return " ".join(word for word in words if word)


def _is_part(text: str, start: int, end: int) -> bool:
    """A piece of a date, a time or a code."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    return (before[1:] in set("-/:.") and before[:1].isdigit()) or (after[:1] in set("-/:") and after[1:].isdigit())


def _word_end(text: str, at: int) -> int:
    """The first white space from `at` on, within reason; the end of the text if that is nearer."""
    end = min(at, len(text))
    while end < len(text) and end < at + 200 and not text[end].isspace():
        end += 1
    return end


def _ascii_digits(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFKC", text)
