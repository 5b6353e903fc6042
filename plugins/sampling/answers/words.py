"""Answers of a few words: equal if nothing but case, spaces and dress differs."""

from __future__ import annotations

import re
import unicodedata

from predawn.plugins.sampling.answers.places import undressed
from predawn.proxy.extensions import Extracted

LONGEST = 80
"""Characters of an answer that is compared as words; longer ones are texts."""
_INNER = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox)\s{0,3}\{([^{}]*)\}")
_EDGES = " \t\r\n.,;:!?\"'“”‘’«»*_`"  # noqa: RUF001
_SPACE = re.compile(r"\s+")


def phrase(text: str) -> Extracted | None:
    """A short answer in its words; `None` for a text that is long, empty or has several lines."""
    stripped = text.strip()
    if not stripped or len(stripped) > LONGEST or "\n" in stripped:
        return None
    shown = undressed(_INNER.sub(r"\1", stripped)).strip(_EDGES)
    key = _SPACE.sub(" ", unicodedata.normalize("NFC", shown).casefold())
    if "\\" in key:
        key = key.replace(" ", "")
    return Extracted(("words", key), shown) if key else None
