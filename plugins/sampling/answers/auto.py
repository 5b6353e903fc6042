"""`auto`: the extractor that fits the question, and otherwise what the answer itself says it is.

Answers of one request are always read in the same way. Where the question has no shape, only what is marked as the
answer is read, or an answer that is short as a whole: the last number of an essay is not what it answers.
"""

from __future__ import annotations

from predawn.plugins.sampling.answers.asked import Asked
from predawn.plugins.sampling.answers.code import CodeExtractor
from predawn.plugins.sampling.answers.json_value import JsonExtractor
from predawn.plugins.sampling.answers.numbers import NumberExtractor, is_number
from predawn.plugins.sampling.answers.options import OptionExtractor
from predawn.plugins.sampling.answers.places import places, tail, undressed
from predawn.plugins.sampling.answers.words import phrase
from predawn.plugins.sampling.answers.yes_no import YesNoExtractor, said
from predawn.proxy.extensions import Extracted, Extractor

LONGEST_END = 400
"""Characters at the end of an answer in which "the answer is" counts, where the question has no shape."""


class Auto:
    """Made for one request."""

    name = "auto"

    def __init__(self, asked: Asked | None = None) -> None:
        asked = asked or Asked()
        self._numbers = NumberExtractor(asked)
        shaped: dict[str, Extractor] = {
            "json": JsonExtractor(),
            "option": OptionExtractor(asked),
            "yes_no": YesNoExtractor(),
            "code": CodeExtractor(),
            "number": self._numbers,
        }
        self._shaped = shaped.get(asked.shape)

    def extract(self, text: str) -> Extracted | None:
        """What the text answers, read as the request suggests."""
        if self._shaped is not None:
            return self._shaped.extract(text)
        return self._unshaped(tail(text))

    def _unshaped(self, text: str) -> Extracted | None:
        whole = text.strip()
        for place in places(whole[-LONGEST_END:]):
            return self._piece(place)
        if whole.startswith(("{", "[")):
            return JsonExtractor().extract(whole)
        return self._piece(undressed(whole)) if "\n" not in whole else None

    def _piece(self, place: str) -> Extracted | None:
        if is_number(place):
            return self._numbers.read(place)
        if place.strip(" .!").lower() in {"yes", "no", "true", "false"}:
            answer = said(place)
            return Extracted(("yes_no", answer), "yes" if answer else "no")
        return phrase(place)
