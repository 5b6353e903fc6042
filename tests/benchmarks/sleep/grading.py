"""Right or wrong: by the last number of an answer."""

import re
from decimal import Decimal

_NUMBER = re.compile(r"(?<![\w.])-?\$?\d[\d,]*(?:\.\d+)?|(?<![\w.])-?\$?\.\d+")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


def last_number(text: str) -> Decimal | None:
    """The last number of a text, without `$`, `,` and a full stop that ends the sentence."""
    found = _NUMBER.findall(text)
    return Decimal(found[-1].replace("$", "").replace(",", "")) if found else None


def is_right(answer: str, expected: str) -> bool:
    """Whether an answer ends with the expected number."""
    wanted = last_number(expected)
    return wanted is not None and last_number(answer) == wanted


def sentences(text: str) -> list[str]:
    """A text cut after its full stops, question and exclamation marks: never within a decimal."""
    return [sentence for sentence in _SENTENCE.split(text.strip()) if sentence]
