"""Reading one number as people and models write it: thousands, decimals of both kinds, fractions, powers of ten, words.

Exact, by rationals. Nothing is evaluated whose size is not known beforehand: `10**10**10` is no number here.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

MOST_DIGITS = 300
"""Digits of a number at most, before and after the point, and its largest power of ten."""
_SPACES = str.maketrans(dict.fromkeys("\u00a0\u2009\u202f\u2007", "\u2009"))
_SIGNS = str.maketrans({"−": "-", "﹣": "-", "－": "-", "⁄": "/", "×": "×", "⋅": "×", "·": "×"})  # noqa: RUF001
_SUPER = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_POWER = re.compile(r"(?<=[\d)a-z])([⁰¹²³⁴⁵⁶⁷⁸⁹⁻]{1,6})")
_TUPLE = re.compile(r"(?<=[(\[])-?\d{1,30}(?:\.\d{1,30})?(?:,-?(?!\d{3}(?!\d))\d{1,30}(?:\.\d{1,30})?){1,8}(?=[)\]])")
"""`(3,4)` is a pair; `(1,234)` may be a thousand."""
_LATEX = (
    (
        re.compile(r"\\[dt]?frac\s{0,3}\{\s{0,3}(-?[\d.]{1,40})\s{0,3}\}\s{0,3}\{\s{0,3}([\d.]{1,40})\s{0,3}\}"),
        r" \1/\2",
    ),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[,; ](?=\d{3})"), "\u2009"),
    (re.compile(r"\\[,;! ]"), " "),
    (re.compile(r"\\(?:times|cdot)\b"), "×"),  # noqa: RUF001
    (re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox)\s{0,3}\{([^{}]{0,80})\}"), r" \1 "),
    (re.compile(r"\\([%$#])"), r"\1"),
    (re.compile(r"\^\s{0,3}\{\s{0,3}([^{}]{1,12})\s{0,3}\}"), r"^\1"),
    (re.compile(r"\\(?:circ|degree)\b"), "°"),
    (re.compile(r"\^°"), "°"),
)
_WORDS = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
    "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty":
    60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip
SCALES = {
    "hundred": 100,
    "thousand": 1000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "dozen": 12,
    "k": 1000,
    "K": 1000,
}


def plain(text: str) -> str:
    """The text with digits, spaces, signs, powers and LaTeX written in one way."""
    if not text.isascii():
        text = text.translate(_SPACES).translate(_SIGNS)
        text = text.translate({ord(char): _written(char) for char in set(text) if not char.isascii()})
        text = _POWER.sub(lambda found: "^" + found[1].translate(_SUPER), text)
    if "\\" in text or "{" in text:
        for pattern, better in _LATEX:
            text = pattern.sub(better, text)
    return _TUPLE.sub(lambda found: found[0].replace(",", ", "), text)


def _written(char: str) -> str:
    """The ASCII digit for one of any script, and ` 1/2` for `½`; powers stay what they are."""
    if (digit := unicodedata.decimal(char, None)) is not None:
        return str(digit)
    if unicodedata.decomposition(char).startswith("<fraction>"):
        top, _, bottom = unicodedata.normalize("NFKC", char).partition("⁄")  # noqa: RUF001
        return f" {top}/{bottom}" if top and bottom else char
    return char


def value_of(digits: str) -> Fraction | None:
    """The value of digits with separators: `1,234.5`, `1.234,5`, `1 234`, `1'234`, `3,5`. `None` if they make no
    sense."""
    if len(digits) > 2 * MOST_DIGITS:
        return None
    digits = digits.replace("\u2009", " ")
    separators = [char for char in digits if not char.isdigit()]
    kinds = set(separators)
    point = ""
    if len(kinds) > 2:
        return None
    if len(kinds) == 2:
        point = separators[-1]
        if separators.count(point) > 1 or point not in ",.":
            return None
    elif len(separators) == 1:
        point = _point(digits, separators[0])
    whole, _, decimals = digits.rpartition(point) if point else (digits, "", "")
    (separator,) = kinds - {point} or {""}
    if separator:
        first, *groups = whole.split(separator)
        if not 1 <= len(first) <= 3 or any(len(group) != 3 for group in groups):
            return None
        whole = first + "".join(groups)
    if not (whole + decimals).isascii() or len(whole) > MOST_DIGITS or len(decimals) > MOST_DIGITS:
        return None
    return Fraction(int((whole or "0") + decimals), 10 ** len(decimals))


def _point(digits: str, separator: str) -> str:
    """The separator if it is a decimal point, or nothing: `1,234` is a thousand, `1.234`, `0,123` and `3,5` are
    decimals."""
    before, _, after = digits.partition(separator)
    if separator == ".":
        return "."
    if separator == "," and (len(after) != 3 or before in {"", "0"} or len(before) > 3):
        return ","
    return ""


def times_power(value: Fraction, base: int, power: str) -> Fraction | None:
    """`value` times `base` to the `power`, or `None` if that is too large to be written out."""
    if len(power) > 5:
        return None
    exponent = int(power)
    if abs(exponent) * len(str(base)) > MOST_DIGITS or (base == 0 and exponent < 0):
        return None
    return value * Fraction(base) ** exponent


def in_words(text: str) -> int | None:
    """The number that a text of one or two words says, up to ninety-nine."""
    parts = text.lower().replace("-", " ").split()
    if len(parts) == 1:
        return _WORDS.get(parts[0])
    if len(parts) == 2 and _WORDS.get(parts[0], 0) >= 20 and 1 <= _WORDS.get(parts[1], 0) <= 9:
        return _WORDS[parts[0]] + _WORDS[parts[1]]
    return None
