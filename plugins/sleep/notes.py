"""The bounded block of notes: read from an answer, made harmless, cut to size, compared and put together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import zip_longest

MAX_CHARS = 5000
"""The size of the block in arXiv 2504.13171."""
TAGS = ("notes", "context", "message", "draft", "question", "answer", "claims")
"""What our prompts mark parts with."""

OPENING = "\u2039"
"""A bracket that opens no tag."""

# Possessive: with plain `*`, a "<" and 20,000 spaces after it held the event loop for 25 s.
_TAG = re.compile(r"[<＜](?=\s*+/?\s*+(?:" + "|".join(TAGS) + r")\b)", re.IGNORECASE)  # noqa: RUF001
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ud800-\udfff\ufeff]")
_BLOCK = re.compile(r"<notes\b[^<>]{0,80}>(.*?)(?:</notes\s*>|\Z)", re.DOTALL | re.IGNORECASE)
_BULLET = re.compile(r"^\s*[-*•]\s+")
_ENDS = re.compile(r"[.!?](?=\s|$)")


def defused(text: str) -> str:
    """`text` without the delimiters of our prompts and without characters that cannot be seen; safe to apply twice."""
    return _TAG.sub(OPENING, _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))


def fitted(text: str, max_chars: int = MAX_CHARS) -> str:
    """At most `max_chars`, cut after a whole line if there is one, else after a whole sentence."""
    text = text.strip()
    if len(text) <= max_chars:
        return text
    head = text[:max_chars]
    if text[max_chars] != "\n" and "\n" in head:
        return head.rpartition("\n")[0].rstrip()
    ends = [match.end() for match in _ENDS.finditer(head) if match.end() < max_chars or text[max_chars].isspace()]
    return head[: ends[-1]].rstrip() if ends and "\n" not in head else head.rstrip()


def read_notes(answer: str, max_chars: int = MAX_CHARS, *, was_cut: bool = False) -> str:
    """The notes in a full-style answer: its last `<notes>` block, or else its lines that begin with `- `.

    An answer in no such form gives an empty text. Of one that was cut off, the last line is not trusted.
    """
    blocks = _BLOCK.findall(answer)
    lines = lines_of(blocks[-1]) if blocks else [line.strip() for line in answer.splitlines() if _BULLET.match(line)]
    if was_cut and not re.search(r"</notes\s*>\s*$", answer, re.IGNORECASE):
        lines = lines[:-1]
    return fitted(defused("\n".join(dict.fromkeys(lines))), max_chars)


def lines_of(notes: str) -> list[str]:
    """The lines of notes that say something."""
    return [line.strip() for line in notes.splitlines() if re.search(r"\w", line)]


def likeness(before: str, after: str) -> float:
    """How much two blocks say the same, from 0 to 1: the lines that both have, of all that one of them has."""
    first, second = _said(before), _said(after)
    if not first and not second:
        return 1.0
    return len(first & second) / len(first | second)


def concatenated(drafts: Sequence[str], max_chars: int) -> str:
    """Drafts put together line by line in turns, each line once, so that a cut takes from the ends of all."""
    turns = zip_longest(*(lines_of(draft) for draft in drafts))
    seen: dict[str, str] = {}
    for line in (line for turn in turns for line in turn if line):
        seen.setdefault(_plain(line), line)
    return fitted("\n".join(seen.values()), max_chars)


def without(notes: str, dropped: Iterable[int]) -> str:
    """Notes without some of their lines, counted from 0."""
    gone = set(dropped)
    return "\n".join(line for index, line in enumerate(lines_of(notes)) if index not in gone)


def _said(notes: str) -> set[str]:
    sentences = (part for line in lines_of(notes) for part in re.split(r"(?<=[.!?])\s+", line))
    return {plain for sentence in sentences if (plain := _plain(sentence))}


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[\w.,$%=+*/-]*\w", text.casefold()))
