"""What was put off: a stage that made room for others, kept with the decision about its context.

It stands in the store, so that any process goes on with it when its time comes, whoever put it off and died since.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from predawn.plugins.sleep.desk import Subject
from predawn.plugins.sleep.orders import KINDS, JobKind, Order

LONGEST_BACKOFF_S = 900.0


def backoff_s(times: int) -> float:
    """How long a stage waits that was put off so many times in a row."""
    return min(30.0 * 2.0 ** min(times, 10), LONGEST_BACKOFF_S)


@dataclass(frozen=True, slots=True)
class Deferral:
    """A stage of an order that goes on at `at` (wall clock) or later."""

    kind: JobKind
    order: Order
    at: float
    times: int
    """In a row."""

    def as_json(self) -> dict[str, Any]:
        """Without the names of tenant and context, which stand beside it."""
        subject = self.order.subject
        terms = {name: value for name, value in self.order.as_json().items() if name != "subject"}
        terms |= {"version": subject.version, "attempt": subject.attempt}
        return {"stage": self.kind, "at": self.at, "times": self.times, "order": terms}


def deferral_of(decision: Mapping[str, Any] | None, subject: Subject) -> Deferral | None:
    """What of a subject's version was put off, by its stored decision; `None` if nothing was, or it cannot be read."""
    stored = decision.get("deferred") if decision is not None else None
    if not isinstance(stored, dict) or stored.get("stage") not in KINDS:
        return None
    try:
        terms = {**stored["order"]}
        version, attempt = terms.pop("version"), terms.pop("attempt")
        order = Order(Subject(subject.tenant, subject.context_id, version, attempt), **terms)
        found = Deferral(stored["stage"], order, float(stored["at"]), int(stored["times"]))
    except (KeyError, TypeError, ValueError):  # another version of Predawn wrote it
        return None
    return found if version == subject.version else None
