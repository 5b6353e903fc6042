"""The ways of asking that are compared, and the same questions put to a server in each of them."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.benchmarks.sleep.cases import Case, Question
from tests.benchmarks.sleep.grading import is_right
from tests.benchmarks.sleep.journal import Bar, Journal
from tests.benchmarks.sleep.site import OFF, Answer, Client


@dataclass(frozen=True, slots=True)
class Way:
    """One way of asking. With `sleeps`, notes are put in as the server thinks right; without, the request forbids it."""

    name: str
    sleeps: bool
    members: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Of the request."""
    instruction: str = ""
    """Said after the question."""


@dataclass(frozen=True, slots=True)
class Wording:
    """How context and question become a request."""

    model: str
    gap: str = " "
    """Between them, in one message; the server's `split` has to fit."""
    max_tokens: int = 512

    def body(self, case: Case, question: Question, way: Way) -> dict[str, Any]:
        asked = f"{question.text} {way.instruction}".rstrip()
        if question.apart:
            messages = [{"role": "user", "content": case.context}, {"role": "user", "content": asked}]
        else:
            messages = [{"role": "user", "content": f"{case.context}{self.gap}{asked}"}]
        return {
            "model": self.model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": self.max_tokens,
            **way.members,
        }


Named = tuple[str, Case, Question]


@dataclass(slots=True)
class Interview:
    """Puts questions to one server; what was answered before an interruption is not asked again."""

    client: Client
    wording: Wording
    journal: Journal

    async def one(self, way: Way, name: str, case: Case, question: Question, prefix: str = "") -> None:
        key = f"{prefix}{way.name}/{name}"
        if key not in self.journal:
            headers = {"x-predawn-context": case.id} if question.names_context else {}
            answer = await self.client.ask(self.wording.body(case, question, way), headers if way.sleeps else OFF)
            self.journal.add(key, answer.as_json())

    async def in_turns(self, ways: Sequence[Way], questions: Sequence[Named], prefix: str = "") -> None:
        """One at a time, each question in all ways, in an order that turns round: for figures of time."""
        bar = Bar(f"{prefix}one at a time".replace("/", ": "), len(questions))
        for number, (name, case, question) in enumerate(questions):
            for place in range(len(ways)):
                await self.one(ways[(number + place) % len(ways)], name, case, question, prefix)
            bar.step()

    async def at_once(self, ways: Sequence[Way], questions: Sequence[Named], streams: int, prefix: str = "") -> None:
        """Several at a time."""
        for way in ways:
            bar = Bar(f"{prefix}{way.name}".replace("/", ": "), len(questions))
            left = iter(questions)
            async with asyncio.TaskGroup() as group:
                for _ in range(streams):
                    group.create_task(self._rest(way, left, bar, prefix))

    async def _rest(self, way: Way, left: Iterator[Named], bar: Bar, prefix: str) -> None:
        for name, case, question in left:
            await self.one(way, name, case, question, prefix)
            bar.step()


@dataclass(frozen=True, slots=True)
class Graded:
    """An answer to one question, and whether it was right."""

    case: str
    question: Question
    answer: Answer
    right: bool


def graded(journal: Journal, way: str, questions: Sequence[Named], prefix: str = "") -> list[Graded]:
    """The answers of one way of asking to these questions, in their order; those not asked are left out."""
    found = []
    for name, case, question in questions:
        key = f"{prefix}{way}/{name}"
        if key in journal:
            answer = Answer.of(journal[key])
            found.append(Graded(case.id, question, answer, is_right(answer.text, question.answer)))
    return found
