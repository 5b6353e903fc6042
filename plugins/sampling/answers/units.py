"""Units of measure: which ones are the same dimension, and what a number without one goes with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

F = Fraction


class Quantity(NamedTuple):
    """The key of a number: its value in the base unit, and its dimension; `""` where no unit was said."""

    value: Fraction
    dimension: str = ""


def _table(*rows: tuple[str, str, Fraction | int]) -> dict[str, tuple[str, Fraction]]:
    return {word: (dimension, Fraction(factor)) for words, dimension, factor in rows for word in words.split("|")}


UNITS: Mapping[str, tuple[str, Fraction]] = _table(
    ("mm|millimeter|millimeters|millimetre|millimetres", "length", F(1, 1000)),
    ("cm|centimeter|centimeters|centimetre|centimetres", "length", F(1, 100)),
    ("m|meter|meters|metre|metres", "length", 1),
    ("km|kilometer|kilometers|kilometre|kilometres", "length", 1000),
    ("inch|inches", "length", F("0.0254")),
    ("ft|foot|feet", "length", F("0.3048")),
    ("yd|yard|yards", "length", F("0.9144")),
    ("mi|mile|miles", "length", F("1609.344")),
    ("mg|milligram|milligrams", "mass", F(1, 1000)),
    ("g|gram|grams", "mass", 1),
    ("kg|kilogram|kilograms|kilo|kilos", "mass", 1000),
    ("oz|ounce|ounces", "mass", F("28.349523125")),
    ("lb|lbs", "mass", F("453.59237")),
    ("ms|millisecond|milliseconds", "time", F(1, 1000)),
    ("s|sec|secs|second|seconds", "time", 1),
    ("min|mins|minute|minutes", "time", 60),
    ("h|hr|hrs|hour|hours", "time", 3600),
    ("day|days", "time", 86_400),
    ("week|weeks", "time", 604_800),
    ("month|months", "months", 1),
    ("year|years|yr|yrs", "months", 12),
    ("ml|milliliter|milliliters|millilitre|millilitres", "volume", F(1, 1000)),
    ("l|L|liter|liters|litre|litres", "volume", 1),
    ("km/h|kmh|kph", "speed", F(1000, 3600)),
    ("mph", "speed", F("0.44704")),
    ("m/s", "speed", 1),
    ("$|USD|dollar|dollars", "$", 1),
    ("cent|cents|¢", "$", F(1, 100)),
    ("€|EUR|euro|euros", "€", 1),
    ("£|GBP", "£", 1),
    ("°|deg|degree|degrees", "°", 1),
    ("°C|celsius", "°C", 1),
    ("°F|fahrenheit", "°F", 1),
)
"""Spelt as written, since `M` is no metre; of words with more than two letters the case does not matter."""
CURRENCIES = "$€£"


def unit_of(word: str) -> tuple[str, Fraction] | None:
    """Dimension and size of a unit, or `None` for a word that is none."""
    return UNITS.get(word) or (UNITS.get(word.lower()) if len(word) > 2 else None)


def powered(unit: tuple[str, Fraction], power: int) -> tuple[str, Fraction]:
    """The unit squared or cubed; a litre is a cube of lengths."""
    dimension, factor = unit
    if dimension == "length" and power == 3:
        return "volume", factor**3 * 1000
    return f"{dimension}^{power}", factor**power


def resolved(keys: Sequence[Hashable]) -> list[Hashable]:
    """The keys with each number that has no unit given that of the one group of the same size that has.

    `42` goes with `42 km` while nobody says `42 m`; then nobody knows what it meant, and it stands alone. The value
    said counts, not that in base units, so a `Quantity` carries its factor in `Measured`.
    """
    united: defaultdict[Fraction, set[Measured]] = defaultdict(set)
    for key in keys:
        if isinstance(key, Measured):
            united[key.said].add(key)
    return [_resolved(key, united) for key in keys]


class Measured:
    """A quantity with a unit: equal to others of the same size and dimension, whatever unit they were said in."""

    __slots__ = ("quantity", "said")

    def __init__(self, said: Fraction, dimension: str, factor: Fraction) -> None:
        self.said = said
        self.quantity = Quantity(said * factor, dimension)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Measured) and self.quantity == other.quantity

    def __hash__(self) -> int:
        return hash(self.quantity)

    def __repr__(self) -> str:
        return f"<{self.said} as {self.quantity.value} {self.quantity.dimension}>"


def _resolved(key: Hashable, united: Mapping[Fraction, set[Measured]]) -> Hashable:
    if isinstance(key, Quantity) and not key.dimension:
        fitting = united.get(key.value, set())
        if len(fitting) == 1:
            return next(iter(fitting))
    return key
