"""`option`: the letter of one of the options that the question offers; never a letter that merely begins a sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping

from predawn.plugins.sampling.answers.asked import Asked
from predawn.plugins.sampling.answers.places import boxed, marked, tail
from predawn.plugins.sampling.answers.words import phrase
from predawn.proxy.extensions import Extracted

_ALONE = re.compile(r"^(?:(?:option|choice|answer)\s+)?[(\[]?([A-Za-z])[)\]]?[.:]?$", re.IGNORECASE)
_LED = re.compile(r"^(?:option\s+|choice\s+)?(?:[(\[]([A-Z])[)\]]|([A-Z])[).:](?=\s|$))")
_SEVERAL = re.compile(r"^[(\[]?[A-Z][)\]]?(?:\s*(?:,|and|&|,\s*and)\s*[(\[]?[A-Z][)\]]?){1,25}$")
_SENTENCE = re.compile(
    r"\b(?:[Oo]ption|[Cc]hoice)\s+[(\[]?([A-Z])[)\]]?(?:\)|\s)[^.\n]{0,40}\b(?:is|are)\s+(?:the\s+)?(?:correct|right|best|true)\b"
)
_DRESS = re.compile(r"[*_`$]|\\(?:text|mathrm|mathbf|textbf)\b")


class OptionExtractor:
    """Reads the box, what is said to be the answer, or an answer that is nothing but an option."""

    name = "option"

    def __init__(self, asked: Asked | None = None) -> None:
        self._options: Mapping[str, str] = asked.options if asked is not None else {}
        self._by_text = {_flat(text): letter for letter, text in self._options.items()}

    def extract(self, text: str) -> Extracted | None:
        """The option, or several where several are named."""
        text = tail(text).strip()
        for place in (boxed(text), marked(text)):
            if place:
                return self.read(place)
        lines = [line for line in text.splitlines() if line.strip()]
        if not lines:
            return None
        if len(lines) == 1 and (found := self.read(lines[0])):
            return found
        said = {match for match in _SENTENCE.findall(_DRESS.sub("", text)) if self._offers(match)}
        if len(said) == 1:
            return _one(said.pop())
        return self._alone(lines[-1])

    def read(self, place: str) -> Extracted | None:
        """The option in a piece of text that is known to be the answer."""
        bare = _bare(place)
        if (alone := self._alone(bare)) is not None:
            return alone
        if _SEVERAL.match(bare):
            letters = set(re.findall(r"\b[A-Z]\b", bare))
            if all(map(self._offers, letters)):
                return Extracted(("options", tuple(sorted(letters))), ", ".join(sorted(letters)))
        led = _LED.match(bare)
        if led is not None and self._offers(led[1] or led[2]):
            return _one(led[1] or led[2])
        letter = self._by_text.get(_flat(bare))
        return _one(letter) if letter else None

    def _alone(self, place: str) -> Extracted | None:
        alone = _ALONE.match(_bare(place))
        letter = alone[1].upper() if alone else ""
        return _one(letter) if letter and self._offers(letter) else None

    def _offers(self, letter: str) -> bool:
        return letter in self._options if self._options else "A" <= letter <= "J"


def _bare(place: str) -> str:
    return _DRESS.sub("", place).strip().strip("{}").strip().rstrip(".")


def _flat(text: str) -> str:
    found = phrase(text)
    return found.shown.casefold() if found else text.casefold()


def _one(letter: str) -> Extracted:
    return Extracted(("option", letter), letter)
