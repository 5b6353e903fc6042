"""`number` and `boxed`: the number an answer comes to, whatever it is dressed in."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass, replace
from fractions import Fraction

from predawn.plugins.sampling.answers.asked import Asked
from predawn.plugins.sampling.answers.numerals import SCALES, in_words, plain, times_power, value_of
from predawn.plugins.sampling.answers.places import boxed, marked, tail, undressed
from predawn.plugins.sampling.answers.units import CURRENCIES, Measured, Quantity, powered, unit_of
from predawn.plugins.sampling.answers.words import phrase
from predawn.proxy.extensions import Extracted

LONGEST_END = 2000
"""Characters at the end of a text in which its last number is looked for."""
MOST_NUMBERS = 64
"""Numbers of a text that are looked at, the last ones."""

_NUMBER = re.compile(
    r"(?P<mixed>\d{1,9}[ ]+)?(?P<top>\d{1,30})[ ]?/[ ]?(?P<bottom>\d{1,30})(?![\d/]|[.,]\d)"
    r"|(?P<digits>\d+(?:[.,'\u2009]\d+)*(?:(?<=\d)[ ]\d{3}(?!\d))*|\.\d+)",
)
_POWER = re.compile(r"[eE]([+-]?\d{1,9})\b|\s{0,2}[×x*]\s{0,2}10\s{0,2}(?:\^|\*\*)\s{0,2}\(?([+-]?\d{1,9})\)?")  # noqa: RUF001
_RAISED = re.compile(r"\s{0,2}(?:\^|\*\*)\s{0,2}\(?(-?\d{1,9})\)?(?!\s{0,2}(?:\^|\*\*)|\d)")
_AFTER = re.compile(r"[\s-]{0,3}(°[CF]?|%|¢|[A-Za-z€£$]+(?:/[a-z]{1,6})?)(?:\^([23])|(?=[^\w^]|$))")
_PERCENT = frozenset({"%", "percent", "pct"})
_ORDINAL = frozenset({"st", "nd", "rd", "th"})
_FORMULA = re.compile(
    r"[\s)]{0,3}(?:(?:[+^×÷±<>≤≥]|\*{1,2})\s?[\d(A-Za-z$√\\]|/\s?[\d(]|[-–]\s?\d|:\d|[xX]\s?\d)"  # noqa: RUF001
)
_PART_OF = re.compile(
    r"(?:[A-Za-z_]|[A-Za-z]-|\d[./:,]|[√<>≤≥≠±^]\s?|[\w)]\s?(?:\*{1,2}|[/×÷])\s?|\d\s?[-+–]\s?|\\sqrt\s?\{?\s?)$"  # noqa: RUF001
)
"""Before a number that is only a part of something."""
_BOUND = re.compile(
    r"\b(?:at (?:least|most)|(?:more|less|fewer|greater|larger|smaller|other) than|up to|over|under|above|below"
    r"|not)\s$",
    re.IGNORECASE,
)
"""Before a number that is not the one that is meant."""
_BULLET = re.compile(r"^[ \t]{0,8}\d{1,3}[.)](?=[ \t]+\S)", re.MULTILINE)
_JOINED = re.compile(r"\s*(?:,|;|&|,?\s*\band\b|,?\s*\bor\b|\bto\b|\.\.)\s*(?:[a-z]\s*=\s*)?[$€£]?-?\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Found:
    """A number in a text; `value` is `None` where it is part of something that is not a plain number."""

    start: int
    end: int
    value: Fraction | None
    unit: tuple[str, Fraction] | None = None
    percent: bool = False


class NumberExtractor:
    """The number in the box, after "the answer is", or the last one of the text."""

    name = "number"

    def __init__(self, asked: Asked | None = None) -> None:
        self._asked = asked or Asked()

    def extract(self, text: str) -> Extracted | None:
        """The number, its key comparable whatever unit or notation it was written in."""
        text = tail(text)
        place = boxed(text) or marked(text)
        if place is not None:
            return self.read(place)
        end = undressed(plain(_BULLET.sub("", text[-LONGEST_END:])))
        return self._said(end, numbers(end))

    def read(self, place: str) -> Extracted | None:
        """The number in a piece of text that is known to be the answer."""
        text = plain(place)
        found = numbers(text)
        if not found:
            return self._in_words(place)
        return self._said(text, _told(text, found))

    def _said(self, text: str, found: list[Found]) -> Extracted | None:
        if not found:
            return None
        last = _summed(text, found)
        if last.value is None:
            return None
        joined = _list(text, found)
        if joined is not None:
            return Extracted(("numbers", joined), ", ".join(map(shown, joined)))
        return Extracted(self._key(last), shown(last.value) + ("%" if last.percent else ""))

    def _key(self, found: Found) -> Hashable:
        assert found.value is not None
        if found.percent:
            return Quantity(found.value / 100)
        if found.unit is None and self._asked.percent:
            return Quantity(found.value / 100)
        if found.unit is not None:
            return Measured(found.value, *found.unit)
        for word in self._asked.units:
            if (unit := unit_of(word)) is not None:
                return Measured(found.value, *unit)
        return Quantity(found.value)

    def _in_words(self, place: str) -> Extracted | None:
        words = place.split()
        for count in (2, 1):
            value = in_words(" ".join(words[:count]))
            if value is not None and len(words) <= count + 2:
                return Extracted(self._key(Found(0, 0, Fraction(value))), str(value))
        return None


class BoxedExtractor:
    """What stands in the last box: a number where it is one, else the words or the formula."""

    name = "boxed"

    def __init__(self, asked: Asked | None = None) -> None:
        self._numbers = NumberExtractor(asked)

    def extract(self, text: str) -> Extracted | None:
        """What the box holds."""
        place = boxed(tail(text))
        if not place:
            return None
        number = self._numbers.read(place) if is_number(place) else None
        return number or phrase(place)


def is_number(place: str) -> bool:
    """True if a piece of text is a number with at most a name before it and a unit or a noun after it."""
    text = plain(place).strip()
    found = numbers(text)
    if not found or any(one.value is None for one in found):
        return False
    before, after = text[: found[0].start].strip(" $€£-+≈~"), text[found[-1].end :].strip(" .")
    between = len(found) == 1 or _list(text, found) is not None or _summed(text, found) != found[-1]
    return (
        between and (not before or re.fullmatch(r"[A-Za-z]{1,2}\s*=", before) is not None) and len(after.split()) <= 3
    )


def numbers(text: str) -> list[Found]:
    """The numbers of a text, as many as are looked at."""
    found = list(_NUMBER.finditer(text))[-MOST_NUMBERS:]
    read: list[Found] = []
    for match in found:
        if read and match.start() < read[-1].end:
            continue  # the power of the number before it
        read.append(_read(text, match))
    return read


def _read(text: str, match: re.Match[str]) -> Found:
    before = text[max(0, match.start() - 24) : match.start()]
    opaque = Found(match.start(), match.end(), None)
    if _PART_OF.search(before) or _BOUND.search(before):
        return opaque
    value = _value(match)
    if value is None:
        return opaque
    end = match.end()
    if power := _POWER.match(text, end):
        scaled, end = times_power(value, 10, power[1] or power[2]), power.end()
    elif (raised := _RAISED.match(text, end)) and value.denominator == 1:
        scaled, end = times_power(Fraction(1), value.numerator, raised[1]), raised.end()
    else:
        scaled = value
    if scaled is None or _FORMULA.match(text, end):
        return replace(opaque, end=end)
    return _with_unit(text, replace(opaque, end=end, value=-scaled if _is_negative(text, match.start()) else scaled))


def _value(match: re.Match[str]) -> Fraction | None:
    if match["digits"]:
        return value_of(match["digits"].replace(" ", "\u2009"))
    bottom = int(match["bottom"])
    if bottom == 0:
        return None
    fraction = Fraction(int(match["top"]), bottom)
    if match["mixed"]:
        return int(match["mixed"]) + fraction if fraction < 1 else None
    return fraction


def _is_negative(text: str, start: int) -> bool:
    """True after a minus that is a sign: with nothing before it from which it could take."""
    before = text[max(0, start - 24) : start].rstrip(" $€£")
    if not before.endswith("-"):
        return re.search(r"\b(?:minus|negative)$", before) is not None
    return re.search(r"(?:^|[\s=(:,])$", before[:-1]) is not None and re.search(r"\d\s*$", before[:-1]) is None


def _with_unit(text: str, found: Found) -> Found:
    """With the scale and the unit that stand before and after it."""
    assert found.value is not None
    value, end = found.value, found.end
    unit: tuple[str, Fraction] | None = None
    sign = text[max(0, found.start - 2) : found.start].strip(" -")
    if sign and sign in CURRENCIES:
        unit = unit_of(sign)
    while after := _AFTER.match(text, end):
        word = after[1]
        if word in _PERCENT or (word == "per" and text.startswith("cent", after.end() + 1)):
            return replace(found, value=value, end=after.end(), percent=True)
        scale = SCALES.get(word) or (SCALES.get(word.lower()) if len(word) > 1 else None)
        if scale is None:
            measured = unit_of(word)
            if measured is not None and unit is None:
                unit, end = powered(measured, int(after[2])) if after[2] else measured, after.end()
                if rate := re.match(r"\s?(?:/|\bper\b|\ban?\b)\s?([A-Za-z]{1,10})\b", text[end : end + 24]):
                    unit, end = _rate(unit, rate[1]), end + rate.end()
            elif text[end : after.start(1)] == "" and word not in _ORDINAL and measured is None:
                return replace(found, value=None)  # `2x`: not a number by itself
            break
        value, end = value * scale, after.end()
    return replace(found, value=value, end=end, unit=unit)


def _rate(unit: tuple[str, Fraction], per: str) -> tuple[str, Fraction]:
    below = unit_of(per)
    if below is None:
        return f"{unit[0]} per {per.lower()}", unit[1]
    if (unit[0], below[0]) == ("length", "time"):
        return "speed", unit[1] / below[1]
    return f"{unit[0]} per {below[0]}", unit[1] / below[1]


def _summed(text: str, found: list[Found]) -> Found:
    """The last number; `2 hours and 30 minutes` are one."""
    last = found[-1]
    for before in reversed(found[:-1]):
        link = text[before.end : last.start]
        if (
            last.value is None
            or before.value is None
            or before.unit is None
            or last.unit is None
            or before.unit[0] != last.unit[0]
            or before.unit[1] <= last.unit[1]
            or re.fullmatch(r",?\s*(?:and\s*)?", link) is None
        ):
            break
        value = before.value * before.unit[1] / last.unit[1] + last.value
        last = Found(before.start, last.end, value, last.unit)
    return last


def _told(text: str, found: list[Found]) -> list[Found]:
    """The numbers of an answer's place that are the answer: all that belong together, or the first if the answer begins
    with it, as in "7 apples, and Cat has 9". None where several could be meant.
    """
    plain_ones = [one for one in found if one.value is not None]
    if len(plain_ones) < 2 or _summed(text, found).start == found[0].start or _list(text, found) is not None:
        return found
    if len({one.value for one in plain_ones}) == 1:
        return found
    return found[:1] if not text[: found[0].start].strip(" $€£-+≈~(") else []


def _list(text: str, found: list[Found]) -> tuple[Fraction, ...] | None:
    """The values of several numbers that are said together: sorted, unless brackets give them an order."""
    if _summed(text, found) != found[-1]:
        return None
    start = len(found) - 1
    while start and _JOINED.fullmatch(text[found[start - 1].end : found[start].start]):
        start -= 1
    values = [one.value for one in found[start:] if one.value is not None]
    if len(values) < 2 or len(values) < len(found) - start:
        return None
    is_ordered = text[: found[start].start].rstrip().endswith(("(", "[", "\\langle", "<"))
    return tuple(values if is_ordered else sorted(values))


def shown(value: Fraction) -> str:
    """As a whole number, a short decimal, or a fraction."""
    if value.denominator == 1:
        return str(value.numerator)
    scaled = value * 10**6
    if scaled.denominator == 1:
        return f"{scaled.numerator / 10**6:.6f}".rstrip("0") if abs(scaled) < 10**18 else str(value)
    return str(value)
