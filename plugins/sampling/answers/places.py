"""Where in a text the answer stands: in a box, after `####`, after "the answer is"; or nowhere that says so."""

from __future__ import annotations

import re
from collections.abc import Iterator

LONGEST_READ = 16_000
"""Characters at the end of an answer that are read; of a longer one its beginning is not."""
LONGEST_PLACE = 400
MOST_MARKS = 64
"""Marks that are looked at, the last ones."""

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_MARK = re.compile(
    r"(?:\b(?:answer|result|antwort|réponse|respuesta|risposta|resposta)\b[*_]{0,2}"
    r"(?:\s{1,3}(?:is|ist|est|es|è|é|to the question is|therefore is|would be|should be|must be|equals)\b)?"
    r"|答案(?:是|为)?|答え(?:は)?)[ \t]{0,3}(?:[:=：][*_]{0,2})?",  # noqa: RUF001
    re.IGNORECASE,
)
_SAYS = re.compile(r"(?:is|ist|est|es|è|é|be|equals|[:=：]|是|为|は)[*_]{0,2}$", re.IGNORECASE)  # noqa: RUF001
_HASHES = re.compile(r"^[ \t]*#{4}[ \t]+([^\n]{1,400})$", re.MULTILINE)
_END = re.compile(r"\n|(?<=[^\d\s])[.!?](?=\s|$)|(?<=\d)\.(?=\s|$)|[。！？]")  # noqa: RUF001
_ASIDE = re.compile(
    r"\s*(?:,\s*(?:not|because|since|as|which)\b|\b(?:because|since|instead of|rather than|and not)\b"
    r"|;|\((?=[^()]*\)\s*$)).*$",
    re.IGNORECASE | re.DOTALL,
)
_NOT = re.compile(r"^\s*(?:not\b|n't\b|never\b|unknown\b|unclear\b|neither\b|cannot\b)", re.IGNORECASE)
_MATHS = re.compile(r"\$\$?(?!\s)([^$\n]{1,100})(?<!\s)\$\$?(?!\d)")
_DRESS = re.compile(
    r"\\[()\[\]]|\$\$|(?<![\d)])\*\*|\*\*(?![\d(])|__|`+|\\(?:text|mathrm|mathbf|textbf)(?=\s*\{)|\$(?!\s?\d)"
)


def tail(text: str) -> str:
    """The end of a text, as much as is read."""
    return text[-LONGEST_READ:]


def boxed(text: str) -> str | None:
    """What stands in the last box, its braces balanced."""
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return None
    last = boxes[-1]
    depth = 1
    for place in range(last.end(), min(len(text), last.end() + LONGEST_PLACE)):
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return text[last.end() : place].strip()
    return None


def marked(text: str) -> str | None:
    """What is said to be the answer last; what is said not to be it does not count."""
    if hashes := _HASHES.findall(text):
        return undressed(hashes[-1])
    marks = [mark for mark in _MARK.finditer(text) if _SAYS.search(mark[0].rstrip())]
    for mark in reversed(marks[-MOST_MARKS:]):
        place = _after(text, mark.end())
        if place and not _NOT.match(place):
            return place
    return None


def _after(text: str, start: int) -> str:
    """From a mark to the end of its sentence; where the line ends with the mark, the next line."""
    piece = text[start : start + LONGEST_PLACE].lstrip(" \t*_:").lstrip("\n ")
    ended = _END.search(piece)
    sentence = piece[: ended.start()] if ended else piece
    return undressed(_ASIDE.sub("", sentence)) or undressed(sentence)


def undressed(text: str) -> str:
    """Without the marks of Markdown and LaTeX that only dress it, and without a full stop."""
    return _DRESS.sub("", _MATHS.sub(r"\1", text)).strip().rstrip(".").strip()


def places(text: str) -> Iterator[str]:
    """Where the answer stands, the surest place first."""
    for found in (boxed(text), marked(text)):
        if found:
            yield found
