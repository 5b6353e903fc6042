"""What a request asks for, as far as that decides how its answers are read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

LONGEST_LOOK = 8000
"""Characters at the end of the question that are looked at."""
MOST_OPTIONS = 26

Shape: TypeAlias = Literal["json", "option", "yes_no", "number", "code", "any"]

_OPTION_LINE = re.compile(r"^[ \t]*[*_]{0,2}\(?([A-Za-z])[).:\]][*_]{0,2}[ \t]+(\S[^\n]{0,400})$", re.MULTILINE)
_OPTION_INLINE = re.compile(r"\(([A-Z])\)[ \t]*([^()\n]{1,200})")
_YES_NO = re.compile(r"\byes\s*(?:or|/|,)\s*no\b|\btrue\s*(?:or|/|,)\s*false\b", re.IGNORECASE)
_NUMERIC = re.compile(
    r"\bhow (?:many|much|old|far|long|tall|fast|heavy|big|large|high|deep|wide)\b|"
    r"\b(?:calculate|compute|evaluate|solve)\b|"
    r"\b(?:what|find)\b[^.?!\n]{0,80}\b(?:sum|total|product|difference|quotient|remainder|number|value|average|mean|median|"
    r"probability|percent(?:age)?|area|perimeter|volume|distance|speed|cost|price|amount|age|ratio|profit)\b|"
    r"\bwhat(?: is|'s)\s+[-\d(√]",
    re.IGNORECASE,
)
_PERCENT = re.compile(r"\bpercent(?:age)?\b|\bper cent\b|%\s*\?|\bin %", re.IGNORECASE)
_CODE = re.compile(
    r"\b(?:write|implement|complete|fix|refactor|give)\b[^.?!\n]{0,80}\b(?:function|code|program|script|class|method)\b",
    re.IGNORECASE,
)
_UNIT = re.compile(
    r"\bhow many ([a-z]+)|\bin ([a-z]+(?:/[a-z]+)?)\s*[?.]|\bhow long in ([a-z]+)|"
    r"\b(?:answer|give it|express\w*) in ([a-z]+)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Asked:
    """The question's shape and what belongs to it."""

    shape: Shape = "any"
    options: Mapping[str, str] = field(default_factory=dict[str, str])
    """Text of each option offered, by its capital letter."""
    percent: bool = False
    """True if a percentage is asked for: `50` then means `50%`."""
    units: tuple[str, ...] = ()
    """Words that may be the unit in which a number is asked for."""


def asked_of(request: Mapping[str, Any]) -> Asked:
    """Read a request of any of the APIs that have messages or prompts."""
    question = question_of(request)
    options = _options(question)
    units = tuple(word.lower() for found in _UNIT.findall(question) for word in found if word)
    return Asked(_shape(request, question, options), options, _PERCENT.search(question) is not None, units)


def _shape(request: Mapping[str, Any], question: str, options: Mapping[str, str]) -> Shape:
    if _wants_json(request):
        return "json"
    if options:
        return "option"
    if _YES_NO.search(question):
        return "yes_no"
    if _CODE.search(question):
        return "code"
    return "number" if _NUMERIC.search(question) else "any"


def _wants_json(request: Mapping[str, Any]) -> bool:
    text = request.get("text")
    form = request.get("response_format") or (text.get("format") if isinstance(text, dict) else None)
    return isinstance(form, dict) and form.get("type") in {"json_object", "json_schema"}


def _options(question: str) -> dict[str, str]:
    """The last run of options that begins with A and leaves no letter out; at least two, else none."""
    for pattern in (_OPTION_LINE, _OPTION_INLINE):
        run: dict[str, str] = {}
        best: dict[str, str] = {}
        for letter, text in pattern.findall(question):
            if letter.upper() == "A":
                run = {}
            elif ord(letter.upper()) != ord("A") + len(run):
                run = {}
                continue
            run[letter.upper()] = " ".join(text.split())
            if len(run) > 1:
                best = run
        if best:
            return dict(list(best.items())[:MOST_OPTIONS])
    return {}


def question_of(request: Mapping[str, Any]) -> str:
    """The end of what the user said last."""
    said = request.get("messages", request.get("input", request.get("prompt")))
    if isinstance(said, list):
        users = [part for part in said if isinstance(part, dict) and part.get("role") == "user"]
        said = users[-1].get("content") if users else said[-1] if said else ""
    return "\n".join(_texts(said))[-LONGEST_LOOK:]


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content[-LONGEST_LOOK:]
    elif isinstance(content, list):
        for part in content[-64:]:
            text = part.get("text") if isinstance(part, dict) else None
            if isinstance(text, str):
                yield text[-LONGEST_LOOK:]
