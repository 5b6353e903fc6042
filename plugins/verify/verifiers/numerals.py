"""Numbers as people write them: digits with separators, currency, fractions, powers of ten, and words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from predawn.plugins.verify.verifiers.vocabulary import list_of

MOST_DIGITS = 40
MOST_EXPONENT = 60
NUMBER = re.compile(
    r"(?:(?P<currency>[$€£¥₹])[ ]?)?"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?![\d]|,\d)|\d+|(?=\.\d))(?P<decimals>\.\d+)?"
    r"(?P<exponent>[eE][+-]?\d{1,3}(?![\w.]))?",
    re.ASCII,
)
SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
WORDS = {word: value for value, word in enumerate(list_of(_UNITS))} | {
    word: 10 * value for value, word in enumerate(list_of("twenty thirty forty fifty sixty seventy eighty ninety"), 2)
}
_NAMED = "half third quarter fourth fifth sixth seventh eighth ninth tenth twelfth"
PARTS = dict(zip(list_of(_NAMED), (2, 3, 4, 4, 5, 6, 7, 8, 9, 10, 12), strict=True))
PARTS |= {f"{word}s": value for word, value in PARTS.items()} | {"halves": 2}
VULGAR = {"½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅛": (1, 8), "⅜": (3, 8)}
SUPERSCRIPTS = {"²": 2, "³": 3}


@dataclass(frozen=True, slots=True)
class Number:
    """A number with what it shows of itself."""

    value: Fraction
    text: str
    resolution: Fraction = Fraction(1)
    """One unit of its last digit: 0.01 for `3.14`, 100,000 for `2.5 million`, 1 for `1200`."""
    decimals: int = 0
    currency: str = ""
    is_percent: bool = False
    dotted: bool = False
    """`1.500`: where it was written this may be fifteen hundred."""
    is_rounded: bool = False
    """Its last digits are scaled away, as in `2.5 million` and `1.8e19`."""

    @property
    def is_whole(self) -> bool:
        return self.value.denominator == 1


def number_of(match: re.Match[str]) -> Number | None:
    """What `NUMBER` matched; `None` for what is too long to be a quantity, or written like a code (`007`)."""
    digits, decimals = match["digits"].replace(",", ""), match["decimals"] or ""
    if len(digits) + len(decimals) > MOST_DIGITS or (len(digits) > 1 and digits[0] == "0"):
        return None
    exponent = int(match["exponent"][1:]) if match["exponent"] else 0
    if abs(exponent) > MOST_EXPONENT:
        return None
    scale = Fraction(10) ** exponent
    shown = max(len(decimals) - 1, 0)
    return Number(
        Fraction((digits or "0") + decimals) * scale,
        match[0].strip(),
        Fraction(1, 10**shown) * scale,
        shown,
        match["currency"] or "",
        dotted=shown == 3 and len(digits) <= 3 and not match["exponent"] and digits not in {"", "0"},
        is_rounded=bool(match["exponent"]),
    )


def scaled(number: Number, factor: int, text: str) -> Number:
    """`2.5` and `million`."""
    return Number(
        number.value * factor,
        text,
        number.resolution * factor,
        number.decimals,
        number.currency,
        is_rounded=factor > 100,
    )


def whole(value: Fraction | int, text: str) -> Number:
    """A number that is exact however it was written."""
    return Number(Fraction(value), text)


def spoken(words: list[str]) -> tuple[Fraction, int] | None:
    """The value of a number in words at the start of `words`, and how many belong to it: `forty two thousand` is 3."""
    total = current = 0
    used = 0
    last = 10**15
    """The last tens or units must be followed by smaller ones: `three four` are two numbers."""
    for index, word in enumerate(words[:12]):
        if word in WORDS:
            value = WORDS[word]
            if not (value < last and (last > 99 or (last >= 20 and 0 < value < 10))):
                break
            current, last = current + value, value
        elif word == "hundred" and 0 < current < 100:
            current, last = current * 100, 10**3
        elif word in {"thousand", "million", "billion"} and current:
            total, current, last = total + current * SCALES[word], 0, 10**3
        elif word == "and" and index and words[index - 1] in SCALES and index + 1 < len(words):
            if words[index + 1] not in WORDS:
                break
            continue
        else:
            break
        used = index + 1
    return (Fraction(total + current), used) if used else None


def written(value: Fraction, like: Number) -> str:
    """A value in the style of a number: its currency, its separators, and decimals as needed, at most two more."""
    if like.is_rounded and like.resolution:
        value = Fraction(round(value / like.resolution)) * like.resolution
    decimals = like.decimals
    while decimals < like.decimals + 2 and (value * 10**decimals).denominator != 1:
        decimals += 1
    rounded = round(value * 10**decimals)
    sign, digits = ("-" if rounded < 0 else ""), str(abs(rounded)).rjust(decimals + 1, "0")
    head, tail = (digits[:-decimals], "." + digits[-decimals:]) if decimals else (digits, "")
    if "," in like.text or (len(head) > 4 and like.currency):
        head = f"{int(head):,}"
    return f"{sign}{like.currency}{head}{tail}" + ("%" if like.is_percent else "")
