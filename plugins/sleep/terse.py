"""The short language of the bundled model: `Ann = 3. Bob is Ann + 4. Ann = 3. 3 + 4 = 7. Bob = 7.`"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal, TypeAlias

from predawn.plugins.sleep.arithmetic import value_of

Fault: TypeAlias = Literal["arithmetic", "derivation", "contradiction", "disagrees", "unheard"]

_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_NAME = re.compile(r"\b[A-Z][a-z]+\b")
_CLAIM = re.compile(r"([A-Z][a-z]+) = (\d{1,9})\.")
_LINK = re.compile(r"([A-Z][a-z]+) is ([A-Z][a-z]+) ([-+*/]) (\d{1,9})\.")
_EQUATION = re.compile(r"(\d{1,9}) ([-+*/]) (\d{1,9}) = (\d{1,9})\.")
_HAS = re.compile(r"\b([A-Z][a-z]+) has (?:(\d+) (?!more\b|fewer\b)([a-z]+))?")


@dataclass(frozen=True, slots=True)
class Claim:
    """What notes say of one name, with the sentences that lead there, and what is wrong with it if something is."""

    name: str
    value: int
    sentences: tuple[str, ...]
    fault: Fault | None = None

    @property
    def text(self) -> str:
        return " ".join(self.sentences)


def read_claims(notes: str) -> list[Claim]:
    """Each `Name = number.` with its work. An equation must hold, and follow from the link it works out; a name has
    one number. Sentences that belong to no claim are left out."""
    values: dict[str, int] = {}
    found: list[Claim] = []
    work: list[str] = []
    for sentence in _SENTENCE.split(notes.strip()):
        claim = _CLAIM.fullmatch(sentence)
        if claim is None:
            work = [*work[-7:], sentence] if _LINK.fullmatch(sentence) or _EQUATION.fullmatch(sentence) else []
            continue
        name, value = claim[1], int(claim[2])
        fault = _fault(name, value, work, values)
        if name not in {one.name for one in found}:
            found.append(Claim(name, value, (*work, sentence), fault))
            if fault is None:
                values[name] = value
        elif values.get(name) == value:
            continue  # said again in the midst of the work that needs it
        elif name in values:
            found = [_faulted(one, "contradiction") if one.name == name else one for one in found]
        work = []
    return found


def agreed(first: list[Claim], second: list[Claim]) -> list[Claim]:
    """The first pass's claims; those that a second, independent pass does not make as well are at fault."""
    others = {claim.name: claim.value for claim in second if claim.fault is None}
    return [
        claim if claim.fault or others.get(claim.name) == claim.value else _faulted(claim, "disagrees")
        for claim in first
    ]


def heard(claims: list[Claim], story: str) -> list[Claim]:
    """The claims; those about a name that a story does not have are at fault, however often they are made."""
    names = set(_NAME.findall(story))
    return [claim if claim.fault or claim.name in names else _faulted(claim, "unheard") for claim in claims]


def names_and_noun(story: str) -> tuple[list[str], str]:
    """Who has something, in the order told, and what is counted most often; an empty noun if nothing is."""
    names: dict[str, None] = {}
    nouns: Counter[str] = Counter()
    for name, _, noun in _HAS.findall(story):
        names[name] = None
        if noun:
            nouns[noun] += 1
    return list(names), nouns.most_common(1)[0][0] if nouns else ""


def question_for(name: str, noun: str) -> str:
    """How the bundled model is asked for someone's number."""
    return f"How many {noun} does {name} have?"


def last_number(text: str) -> int | None:
    """The answer that a text gives: its last number."""
    numbers = re.findall(r"\d{1,9}", text)
    return int(numbers[-1]) if numbers else None


def _fault(name: str, value: int, work: list[str], values: dict[str, int]) -> Fault | None:
    """What is wrong with a claim, given its work and the claims before it."""
    link = next((match for sentence in work if (match := _LINK.fullmatch(sentence)) and match[1] == name), None)
    worked = [match for sentence in work if (match := _EQUATION.fullmatch(sentence))]
    for equation in worked:
        if value_of(f"{equation[1]} {equation[2]} {equation[3]}") != int(equation[4]):
            return "arithmetic"
    if worked and int(worked[-1][4]) != value:
        return "derivation"
    if link is None:
        return "derivation" if worked else None
    parent = values.get(link[2])
    if parent is None or value_of(f"{parent} {link[3]} {link[4]}") != value:
        return "derivation"
    return None


def _faulted(claim: Claim, fault: Fault) -> Claim:
    return Claim(claim.name, claim.value, claim.sentences, fault)
