"""What is counted: apples with apples, minutes with hours."""

from __future__ import annotations

from fractions import Fraction

from predawn.plugins.verify.verifiers.vocabulary import words_of

_SCALES: dict[str, dict[str, Fraction]] = {
    "time": {
        "s sec second": Fraction(1),
        "ms millisecond": Fraction(1, 1000),
        "min minute": Fraction(60),
        "h hr hour": Fraction(3600),
        "day": Fraction(86_400),
        "week": Fraction(604_800),
    },
    "length": {
        "m meter metre": Fraction(1),
        "km kilometer kilometre": Fraction(1000),
        "cm centimeter centimetre": Fraction(1, 100),
        "mm millimeter millimetre": Fraction(1, 1000),
    },
    "feet": {"ft foot feet": Fraction(12), "inch inche": Fraction(1), "yard yd": Fraction(36)},
    "mass": {"g gram": Fraction(1), "kg kilogram": Fraction(1000), "mg milligram": Fraction(1, 1000)},
    "volume": {"l liter litre": Fraction(1), "ml milliliter millilitre": Fraction(1, 1000)},
    "dollar": {"$ dollar usd": Fraction(1), "cent ¢": Fraction(1, 100)},
    "euro": {"€ euro eur": Fraction(1)},
    "pound": {"£ gbp": Fraction(1)},
    "count": {"dozen": Fraction(12), "pair": Fraction(2)},
}
KNOWN: dict[str, tuple[str, Fraction]] = {
    name: (dimension, factor)
    for dimension, scales in _SCALES.items()
    for names, factor in scales.items()
    for name in names.split()
}
RATES = words_of(
    "hour hr h day week month year minute min second sec s person people item unit each piece kg g lb km mile m meter "
    "gallon liter l box bag pack apple ticket book student child page hours days weeks months years"
)
"""What may stand after `per` or a slash without being a divisor."""
NO_UNIT = words_of(
    "and so then because since has have had is are was were be been but if or while when who which that than as with "
    "without to from by at for into onto after before until not no now we i you he she they it gets get gave gives "
    "remainder r rem mod modulo base binary hex octal log ln sqrt sin cos tan exp abs max min ceil floor root choose "
    "factorial plus minus times squared power let"
)
"""Words that cannot name what is counted; an expression ends, or cannot be read, where one stands."""
FUNCTIONS = words_of("mod modulo log ln sqrt sin cos tan exp abs max min ceil floor root choose factorial power")


def head(words: list[str]) -> str:
    """What a unit of several words counts: `red apples` and `apples` are apples, `bags of rice` bags."""
    if not words:
        return ""
    lower = [word.lower() for word in words]
    ends = [
        at
        for at, word in enumerate(lower)
        if at and word in {"of", "for", "from", "with", "on", "at", "in", "to", "by"}
    ]
    noun = lower[ends[0] - 1] if ends else lower[-1]
    if lower[-1] in {"each", "total", "left", "more", "altogether", "now", "remaining"} and len(lower) > 1:
        return head(words[:-1])
    return "" if noun in {"each", "total", "left", "more", "altogether", "now", "remaining"} else singular(noun)


def singular(noun: str) -> str:
    """Good enough to see that two words are the same."""
    if noun in KNOWN or len(noun) <= 2:
        return noun
    if noun.endswith("ies") and len(noun) > 4:
        return noun[:-3] + "y"
    if noun.endswith(("ses", "xes", "zes", "ches", "shes")):
        return noun[:-2]
    return noun[:-1] if noun.endswith("s") and not noun.endswith("ss") else noun


def factor(unit: str) -> tuple[str, Fraction] | None:
    """The dimension of a unit and its size there, if it is one of those that are converted."""
    return KNOWN.get(unit)
