"""`yes_no`: yes or no, true or false; an answer that says both says nothing."""

from __future__ import annotations

import re

from predawn.plugins.sampling.answers.places import boxed, marked, tail
from predawn.proxy.extensions import Extracted

_FIRST = re.compile(r"^[\s*_`\"'(]*(yes|no|true|false)\b(?![-’'])", re.IGNORECASE)  # noqa: RUF001
_NO_ANSWER = re.compile(
    r"^[\s*_`\"'(]*(?:no(?=\s+(?:one|doubt|idea|problem|way|matter|longer|more|need|answer|definitive))|yes and no)",
    re.IGNORECASE,
)
_YES = frozenset({"yes", "true"})


class YesNoExtractor:
    """Reads the box, what is said to be the answer, or the first word."""

    name = "yes_no"

    def extract(self, text: str) -> Extracted | None:
        """Yes or no, if the text says one of them."""
        end = tail(text)
        for place in (boxed(end), marked(end)):
            if place and (found := said(place)) is not None:
                return _extracted(found)
        lines = [line for line in (text[:400], end[-400:].strip().rsplit("\n", 1)[-1]) if line.strip()]
        answers = {found for line in lines if (found := said(line)) is not None}
        return _extracted(answers.pop()) if len(answers) == 1 else None


def said(place: str) -> bool | None:
    """What the first word says; `None` where it is no answer, as in "no doubt"."""
    if _NO_ANSWER.match(place):
        return None
    first = _FIRST.match(place.replace("\\text{", ""))
    return first[1].lower() in _YES if first else None


def _extracted(answer: bool) -> Extracted:
    return Extracted(("yes_no", answer), "yes" if answer else "no")
