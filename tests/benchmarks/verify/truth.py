"""Whether thoughts about a story are right, by what the story says: nothing of the verifiers is used."""

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from operator import add, mul, sub, truediv

from predawn.kernels.tiny.world import Story

OPERATIONS: Mapping[str, Callable[[Fraction, Fraction], Fraction]] = {"+": add, "-": sub, "*": mul, "/": truediv}
_PLAN = re.compile(r"[A-Z][a-z]+(?: from [A-Z][a-z]+)*")
_VALUE = re.compile(r"([A-Z][a-z]+) = (\d+)")
_RELATION = re.compile(r"([A-Z][a-z]+) is ([A-Z][a-z]+) ([-+*/]) (\d+)")
_EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")


def all_right(story: Story, thoughts: str) -> bool:
    """True if every sentence is one that thoughts consist of, and says what is so."""
    sentences = sentences_of(thoughts)
    return bool(sentences) and all(is_right(story, sentence) for sentence in sentences)


def sums_right(thoughts: str) -> bool:
    """True if no equation of numbers is wrong, whatever they count."""
    return all(not (match := _EQUATION.fullmatch(sentence)) or _holds(match) for sentence in sentences_of(thoughts))


def sentences_of(thoughts: str) -> list[str]:
    """Without their full stops."""
    return [sentence.strip() for sentence in thoughts.split(".") if sentence.strip()]


def is_right(story: Story, sentence: str) -> bool:
    """One sentence, alone."""
    if _PLAN.fullmatch(sentence):
        chain = [fact.name for fact in reversed(story.chain(story.asked))]
        return sentence.split(" from ") == chain
    if match := _VALUE.fullmatch(sentence):
        return any(fact.name == match[1] and str(fact.value) == match[2] for fact in story.facts)
    if match := _RELATION.fullmatch(sentence):
        told = [(fact.name, fact.parent, fact.operation, str(fact.operand)) for fact in story.facts]
        return match.groups() in told
    match = _EQUATION.fullmatch(sentence)
    return match is not None and _holds(match)


def _holds(match: re.Match[str]) -> bool:
    left, operation, right, result = match.groups()
    if operation == "/" and not int(right):
        return False
    return OPERATIONS[operation](Fraction(left), Fraction(right)) == int(result)
