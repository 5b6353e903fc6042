"""A context and the questions about it that can be graded."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    answer: str
    """The number that is right."""
    kind: str = "foreseeable"
    """Or why nobody could have thought about it before: `other noun`, `news` it brings with it."""
    depth: int = 0
    """Dependent steps to the answer, where that is known."""
    apart: bool = False
    """True if it is a message of its own instead of standing at the end of the context's."""
    names_context: bool = False
    """True if the request says which context it belongs to, for it does not begin with just that."""

    @property
    def is_foreseeable(self) -> bool:
        return self.kind == "foreseeable"


@dataclass(frozen=True, slots=True)
class Case:
    id: str
    context: str
    questions: tuple[Question, ...]

    def named(self, *, foreseeable: bool) -> list[tuple[str, Question]]:
        """Its questions of one sort, each with a name that stays the same between runs."""
        return [
            (f"{self.id}/{number}", question)
            for number, question in enumerate(self.questions)
            if question.is_foreseeable == foreseeable
        ]


def all_named(cases: Sequence[Case], *, foreseeable: bool) -> list[tuple[str, Case, Question]]:
    """All questions of one sort, with their cases."""
    return [(name, case, question) for case in cases for name, question in case.named(foreseeable=foreseeable)]
