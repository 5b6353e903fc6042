"""The plain language of the stories: how they are told and asked, how notes and steps are written, and read back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from predawn.kernels.tiny.world import Aside, Fact, Story

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

SLEEP_REQUESTS = (
    "Write notes.",
    "Write down what follows from the story.",
    "Write notes on the story.",
    "Note what follows.",
)
"""What a request for notes says, after the story or before it."""

NOTES_HEADING = "Notes:"
DRILL_REQUEST = "Say it again."

FILLERS = (
    "You are a helpful assistant.",
    "Answer with a number.",
    "Be brief.",
    "Think step by step.",
    "Here is a story.",
    "Read the story and answer the question.",
    "Use the notes.",
    "Do not work out again what the notes hold.",
    "The notes were written before and are right.",
)
"""Sentences around a story that change nothing about the answer."""

_TIMES = {2: "twice", 3: "three times"}


def sentence(told: Fact | Aside, noun: str, *, named: bool) -> str:
    """One sentence of a story; `named` says what is counted where that could be left out."""
    if isinstance(told, Aside):
        return f"{told.name} has {told.value} {told.noun}."
    if told.parent is None:
        return f"{told.name} has {told.value} {noun}."
    things = f" {noun}" if named else ""
    if told.operation in "+-":
        word = "more" if told.operation == "+" else "fewer"
        return f"{told.name} has {told.operand} {word}{things} than {told.parent}."
    times = "half" if told.operation == "/" else _TIMES[told.operand]
    return f"{told.name} has {times} as many{things} as {told.parent}."


def tell(story: Story, random: Random | None = None) -> str:
    """The story without its question. `random` varies the wording; without it the shortest is used."""
    return " ".join(
        sentence(told, story.noun, named=random is not None and random.random() < 0.3) for told in story.sentences
    )


def ask(story: Story, name: str | None = None, random: Random | None = None) -> str:
    """A question for `name`'s number, or that of whom the story asks about."""
    who = name or story.asked
    if random is not None and random.random() < 0.2:
        return f"How many does {who} have?"
    return f"How many {story.noun} does {who} have?"


def relation(fact: Fact) -> str:
    """What follows a name to say where its number comes from: ` is Ann + 4.` or ` = 3.`"""
    return f" is {fact.parent} {fact.operation} {fact.operand}." if fact.parent else f" = {fact.value}."


def step(fact: Fact, parent_value: int | None = None) -> str:
    """How one fact is worked out: `Bob is Ann + 4. 3 + 4 = 7. Bob = 7.`, or `Ann = 3.` where there is nothing to do."""
    if fact.parent is None or parent_value is None:
        return f"{fact.name} = {fact.value}."
    work = f"{fact.operation} {fact.operand}"
    return f"{fact.name} is {fact.parent} {work}. {parent_value} {work} = {fact.value}. {fact.name} = {fact.value}."


def worked_notes(story: Story) -> str:
    """Everyone's number, with the work, in the order told: `Bob is Ann + 4. Ann = 3. 3 + 4 = 7. Bob = 7.`

    The number that is worked with is said again first, for it may stand far back.
    """
    values = {fact.name: fact.value for fact in story.facts}
    lines = []
    for fact in story.facts:
        line = step(fact, values.get(fact.parent or ""))
        if fact.parent is not None:
            known = f"{fact.parent} = {values[fact.parent]}."
            line = line.replace(". ", f". {known} ", 1)
        lines.append(line)
    return " ".join(lines)


def short_notes(facts: Iterable[Fact]) -> str:
    """Numbers only: `Ann = 3. Bob = 7.`"""
    return " ".join(f"{fact.name} = {fact.value}." for fact in facts)


def plan(chain: tuple[Fact, ...]) -> str:
    """Whose number follows from whose, from the question back: `Cat from Bob from Ann.`"""
    return " from ".join(fact.name for fact in reversed(chain)) + "."


def correction(equation: str, fact: Fact) -> str:
    """A remark that puts a wrong result right: `Wait: 3 + 4 = 7. Bob = 7.`"""
    return f"Wait: {equation} = {fact.value}. {fact.name} = {fact.value}."


def claims(text: str) -> list[tuple[str, int]]:
    """Every `Name = number.` in `text`, in order."""
    return [(name, int(value)) for name, value in re.findall(r"([A-Z][a-z]+) = (\d+)(?=\.)", text)]


def last_number(text: str) -> int | None:
    """The answer a text gives: its last number."""
    numbers = re.findall(r"\d+", text)
    return int(numbers[-1]) if numbers else None
