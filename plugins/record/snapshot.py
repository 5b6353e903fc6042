"""What is kept of a finished exchange, and the row it becomes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from predawn.plugins import Budget, Decision, Difficulty, Exchange, Ledger, Verdict

if TYPE_CHECKING:
    from predawn.plugins.record.content import Content

_COLUMNS = frozenset(
    {"slept", "prompt", "cached_prompt", "output", "reasoning", "discarded", "verify", "estimated", "spend_usd"}
)
_IN_RECORD = tuple(
    field.name for field in fields(Ledger) if field.name not in _COLUMNS | {"calls", "total_s", "is_answer_booked"}
)
_LARGEST = (1 << 63) - 1
_encode = msgspec.json.Encoder(enc_hook=repr).encode


def _storable(value: float) -> float:
    """A number that the store takes; upstreams may report any."""
    if type(value) is int and 0 <= value <= _LARGEST:
        return value
    if not math.isfinite(value):
        return 0.0
    return min(max(value, 0), _LARGEST)


def _counted(verdicts: Sequence[Verdict]) -> dict[str, dict[str, int]]:
    """How often each verifier said what; not what of, for that is the answer's own text."""
    counts: dict[str, dict[str, int]] = {}
    for verdict in verdicts:
        said = counts.setdefault(verdict.verifier, {})
        said[verdict.outcome] = said.get(verdict.outcome, 0) + 1
    return counts


def _by_choice(verdicts: Sequence[Verdict]) -> dict[str, dict[str, dict[str, int]]]:
    """The same for each choice, of an answer that had several."""
    choices = sorted({verdict.choice for verdict in verdicts})
    if not choices or choices == [0]:
        return {}
    return {str(choice): _counted([one for one in verdicts if one.choice == choice]) for choice in choices}


class Snapshot(NamedTuple):
    """An exchange without its bytes: taken on a path that counts microseconds, turned into a row off it.

    Nothing here changes any more once observers are told, and neither request nor headers are held on to.
    """

    id: str
    tenant: str
    key_id: str | None
    route: str
    model: str
    upstream: str
    upstream_model: str
    stream: bool
    status: int
    outcome: str
    error: str | None
    arrived_at: float
    ledger: Ledger
    decisions: Sequence[Decision]
    notes: Sequence[Mapping[str, Any]]
    difficulty: Difficulty | None
    budget: Budget | None
    content: Content | None
    verdicts: Sequence[Verdict] = ()

    @classmethod
    def of(cls, exchange: Exchange, content: Content | None = None) -> Snapshot:
        return cls(
            exchange.id,
            exchange.tenant,
            exchange.key_id,
            exchange.route,
            exchange.model,
            exchange.upstream,
            exchange.upstream_model,
            exchange.stream,
            exchange.status,
            exchange.outcome,
            exchange.error,
            exchange.arrived_at,
            exchange.ledger,
            exchange.decisions,
            exchange.notes,
            exchange.difficulty,
            exchange.budget,
            content,
            exchange.verdicts,
        )

    def row(self) -> dict[str, Any]:
        """The columns of the table `exchanges`."""
        ledger = self.ledger
        return {
            "id": self.id,
            "tenant": self.tenant,
            "key_id": self.key_id,
            "route": self.route,
            # PostgreSQL stores no NUL, and a model that takes any name takes such a one, too.
            "model": self.model.replace("\0", ""),
            "upstream": self.upstream,
            "upstream_model": self.upstream_model.replace("\0", ""),
            "stream": self.stream,
            "status": self.status,
            "outcome": self.outcome,
            "arrived_at": self.arrived_at,
            "total_s": ledger.total_s,
            **{name: _storable(getattr(ledger, name)) for name in _COLUMNS},
            "record": self._record(),
            "content": self.content.encoded() if self.content is not None else None,
        }

    def _record(self) -> msgspec.Raw:
        """What has no column, as JSON, whatever plugins put into their decisions."""
        record = {
            "error": self.error,
            "ledger": {name: getattr(self.ledger, name) for name in _IN_RECORD},
            "calls": self.ledger.calls,
            "decisions": self.decisions,
            "notes": self.notes,
            "difficulty": self.difficulty,
            "budget": self.budget,
            "checks": _counted(self.verdicts),
            **({"checks_by_choice": apart} if (apart := _by_choice(self.verdicts)) else {}),
        }
        try:
            return msgspec.Raw(_encode(record))
        except (TypeError, ValueError, RecursionError) as exc:  # keys that are no strings, circles, half characters
            empty: dict[str, Any] = {"calls": [], "decisions": [], "notes": [], "difficulty": None, "budget": None}
            return msgspec.Raw(_encode({**record, **empty, "unreadable": f"{type(exc).__name__}: {exc}"}))
