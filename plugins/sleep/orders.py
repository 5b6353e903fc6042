"""What is to be done about a context: an order, and the jobs by which its stages are done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from predawn.plugins.sleep.desk import Subject
from predawn.plugins.sleep.prompts import Style

JobKind: TypeAlias = Literal["consolidate", "check", "anticipate", "warm"]
KINDS: tuple[JobKind, ...] = ("consolidate", "check", "anticipate", "warm")
PREFIX = "sleep."


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done about a subject: every number that a job decides by, fixed when it is submitted."""

    subject: Subject
    model: str
    style: Style = "full"
    passes: int = 4
    drafts: int = 1
    budget_tokens: int = 60_000
    questions: int = 5
    warms: bool = True
    priority: int = 100
    turn: int = 0
    """How often a prefix was warmed in a row; jobs are named by it, so that there are few names to remember."""

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "subject": self.subject.as_json()}

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Order:
        return cls(**{**arguments, "subject": Subject.of(arguments["subject"])})

    def job_id(self, kind: JobKind) -> str:
        """The same on every machine, so that two which submit the same order submit one job."""
        return f"{PREFIX}{kind}.{self.subject.ident(kind, self.turn if kind == 'warm' else 0)}"

    @property
    def job_ids(self) -> list[str]:
        return [self.job_id(kind) for kind in KINDS]
