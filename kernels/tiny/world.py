"""Stories of quantities: who has how many, told through chains of comparisons. Pure, seeded, endless."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from random import Random

Operation: TypeAlias = Literal["+", "-", "*", "/"]

LARGEST = 99
"""Quantities are whole numbers from 0 to this: each is one token."""
DEEPEST = 8
MOST_DISTRACTORS = 3

NAMES = (
    "Ann", "Bob", "Cat", "Dan", "Eve", "Fay", "Gus", "Hal", "Ida", "Jon", "Kim", "Leo", "Mia", "Ned", "Ola",
    "Pam", "Quin", "Ray", "Sue", "Tom", "Una", "Vic", "Wes", "Xia", "Yan", "Zoe", "Amy", "Ben", "Cleo",
    "Dora", "Ella", "Finn", "Gina", "Hugo", "Ivan", "Jill", "Karl", "Lena", "Max", "Nora",
)  # fmt: skip
NOUNS = (
    "apples", "pears", "books", "coins", "cards", "shells", "stamps", "pens", "cups", "keys", "balls",
    "beads", "nuts", "plums", "eggs", "hats", "kites", "maps", "rings", "toys",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fact:
    """One sentence of a story: `name` has a number of its own, or so many more, fewer, times as many as `parent`."""

    name: str
    value: int
    parent: str | None = None
    operation: Operation = "+"
    operand: int = 0
    depth: int = 0
    """How many dependent steps it takes to work out `value`."""


@dataclass(frozen=True, slots=True)
class Aside:
    """A sentence that helps with no question: someone's number of something else."""

    name: str
    value: int
    noun: str


@dataclass(frozen=True, slots=True)
class Story:
    """Sentences in the order they are told; whoever is compared with has been told of before."""

    noun: str
    sentences: tuple[Fact | Aside, ...]
    asked: str
    """Whom the question is about."""

    @property
    def facts(self) -> tuple[Fact, ...]:
        """Everyone whose number can be known, in the order told."""
        return tuple(sentence for sentence in self.sentences if isinstance(sentence, Fact))

    def fact(self, name: str) -> Fact:
        """What is told of `name`. `KeyError` if the story does not know it."""
        for fact in self.facts:
            if fact.name == name:
                return fact
        raise KeyError(name)

    def chain(self, name: str) -> tuple[Fact, ...]:
        """What has to be worked out to know `name`'s number, first things first."""
        steps = [self.fact(name)]
        while (parent := steps[-1].parent) is not None:
            steps.append(self.fact(parent))
        return tuple(reversed(steps))

    @property
    def depth(self) -> int:
        """Dependent steps to the answer."""
        return self.fact(self.asked).depth

    @property
    def answer(self) -> int:
        return self.fact(self.asked).value


def story(random: Random, depth: int, distractors: int) -> Story:
    """A story whose question takes `depth` steps, with `distractors` sentences that do not matter for it."""
    names = random.sample(NAMES, depth + 1 + distractors)
    noun, other = random.sample(NOUNS, 2)
    chain = [Fact(names[0], random.randint(1, 30))]
    for name in names[1 : depth + 1]:
        chain.append(_compared(random, name, chain[-1]))
    told: list[Fact | Aside] = list(chain)
    for name in names[depth + 1 :]:
        _add_distractor(random, told, name, other)
    return Story(noun, tuple(told), chain[-1].name)


def _add_distractor(random: Random, told: list[Fact | Aside], name: str, other: str) -> None:
    kind = random.random()
    sentence: Fact | Aside
    if kind < 0.15:
        sentence, earliest = Aside(name, random.randint(1, LARGEST), other), 0
    elif kind < 0.35:
        sentence, earliest = Fact(name, random.randint(1, 30)), 0
    else:
        place, parent = random.choice([(i, fact) for i, fact in enumerate(told) if isinstance(fact, Fact)])
        sentence, earliest = _compared(random, name, parent), place + 1
    told.insert(random.randint(earliest, len(told)), sentence)


def _compared(random: Random, name: str, parent: Fact) -> Fact:
    """Someone whose number follows from `parent`'s by one operation."""
    operation, operand = work(random, parent.value)
    value = apply(parent.value, operation, operand)
    return Fact(name, value, parent.name, operation, operand, parent.depth + 1)


def work(random: Random, value: int) -> tuple[Operation, int]:
    """An operation on `value` and its operand, such that the result is a whole number within bounds."""
    choices: list[tuple[Operation, int]] = []
    if value + 1 <= LARGEST:
        more = random.randint(1, min(12, LARGEST - value))
        choices.extend(("+", more) for _ in range(3))
    if value >= 2:
        fewer = random.randint(1, min(12, value - 1))
        choices.extend(("-", fewer) for _ in range(3))
    choices.extend(("*", factor) for factor in (2, 3) if 0 < value * factor <= LARGEST)
    if value >= 2 and value % 2 == 0:
        choices.extend(("/", 2) for _ in range(2))
    return random.choice(choices)


def apply(value: int, operation: Operation, operand: int) -> int:
    """What `value operation operand` is."""
    if operation == "+":
        return value + operand
    if operation == "-":
        return value - operand
    return value * operand if operation == "*" else value // operand
