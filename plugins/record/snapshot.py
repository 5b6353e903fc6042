"""What is kept of a finished exchange, and the row it becomes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from predawn.plugins import Exchange, Ledger, Verdict

if TYPE_CHECKING:
    from predawn.plugins.record.content import Content

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
    """The row that an exchange becomes: the columns of the table `exchanges`, in their order.

    Made as soon as observers are told, 2 µs: neither request nor reply nor ledger are held on to while it waits.
    """

    tenant: str
    id: str
    key_id: str | None
    route: str
    model: str
    upstream: str
    upstream_model: str
    stream: bool
    status: int
    outcome: str
    arrived_at: float
    total_s: float
    prompt: float
    cached_prompt: float
    output: float
    reasoning: float
    discarded: float
    verify: float
    slept: float
    estimated: float
    spend_usd: float
    record: str
    """What has no column, as JSON."""
    content: str | None

    @classmethod
    def of(cls, exchange: Exchange, content: Content | None = None) -> Snapshot:
        ledger = exchange.ledger
        model, upstream_model = exchange.model, exchange.upstream_model
        return cls._make(
            (
                exchange.tenant,
                exchange.id,
                exchange.key_id,
                exchange.route,
                # PostgreSQL stores no NUL, and a model that takes any name takes such a one, too.
                model.replace("\0", "") if "\0" in model else model,
                exchange.upstream,
                upstream_model.replace("\0", "") if "\0" in upstream_model else upstream_model,
                exchange.stream,
                exchange.status,
                exchange.outcome,
                exchange.arrived_at,
                ledger.total_s,
                *_numbers(ledger),
                _record(exchange),
                content.encoded() if content is not None else None,
            )
        )

    def row(self) -> dict[str, Any]:
        """The same as it would be read from the store."""
        return {**self._asdict(), "record": msgspec.Raw(self.record.encode())}


def _numbers(ledger: Ledger) -> Sequence[float]:
    """The columns of the ledger, as the store takes them."""
    numbers = (
        ledger.prompt,
        ledger.cached_prompt,
        ledger.output,
        ledger.reasoning,
        ledger.discarded,
        ledger.verify,
        ledger.slept,
        ledger.estimated,
        ledger.spend_usd,
    )
    # a sum is NaN or infinite if one of them is: 0.3 µs for all, where looking at each takes 2
    if min(numbers) >= 0 and sum(numbers) <= _LARGEST:
        return numbers
    return [_storable(number) for number in numbers]


def _record(exchange: Exchange) -> str:
    """What has no column, whatever plugins put into their decisions."""
    ledger = exchange.ledger
    record: dict[str, Any] = {
        "error": exchange.error,
        "ledger": {
            "discarded_prompt": ledger.discarded_prompt,
            "verify_prompt": ledger.verify_prompt,
            "chunks": ledger.chunks,
            "plugin_s": ledger.plugin_s,
            "upstream_s": ledger.upstream_s,
            "first_token_s": ledger.first_token_s,
            "last_token_s": ledger.last_token_s,
            "max_gap_s": ledger.max_gap_s,
        },
        "calls": ledger.calls,
        "decisions": exchange.decisions,
        "notes": exchange.notes,
        "difficulty": exchange.difficulty,
        "budget": exchange.budget,
        "checks": {},
    }
    if verdicts := exchange.verdicts:
        record["checks"] = _counted(verdicts)
        if apart := _by_choice(verdicts):
            record["checks_by_choice"] = apart
    try:
        return _encode(record).decode()
    except (TypeError, ValueError, RecursionError) as exc:  # keys that are no strings, circles, half characters
        empty: dict[str, Any] = {"calls": [], "decisions": [], "notes": [], "difficulty": None, "budget": None}
        return _encode({**record, **empty, "unreadable": f"{type(exc).__name__}: {exc}"}).decode()
