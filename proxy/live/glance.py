"""What the live page is told of one exchange: times, counts and the names of decisions; never what was said.

Times are whole milliseconds after the feed's own beginning.
"""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from predawn.proxy.accounting import Account
    from predawn.proxy.exchange import Exchange
    from predawn.proxy.ledger import Call, Decision, Verdict

MOST_CALLS = 12
MOST_MARKS = 40
MOST_DECISIONS = 12
LONGEST_WORD = 80
LONGEST_ID = 128
"""Ids are told whole: records are looked up by them."""
_LARGEST = 1 << 53


class Tally:
    """How often verifiers said what about one exchange, and when they objected; reads each verdict once."""

    __slots__ = ("_at", "marks", "passed", "unsure", "violations")

    def __init__(self) -> None:
        self._at = 0
        self.passed = 0
        self.violations = 0
        self.unsure = 0
        self.marks: list[int] = []
        """When they objected."""

    def read(self, verdicts: Sequence[Verdict], started_ms: int, now_ms: int) -> None:
        """Go on where the last reading ended; a verdict that does not say when it came, came just now."""
        for verdict in islice(verdicts, self._at, None):
            if verdict.outcome == "pass":
                self.passed += 1
            elif verdict.outcome == "violation":
                self.violations += 1
                if len(self.marks) < MOST_MARKS:
                    at_s = verdict.at_s
                    self.marks.append(now_ms if at_s is None else started_ms + int(number(at_s) * 1000))
            else:
                self.unsure += 1
        self._at = len(verdicts)


def glance(exchange: Exchange, account: Account, origin: float, now: float, tally: Tally) -> dict[str, Any]:
    """One exchange, on its way or over, as far as it is known at `now`."""

    def ms(at: float) -> int | None:
        return int((at - origin) * 1000) if at else None

    meter, ledger = account.meter, exchange.ledger
    started_ms = int((exchange.started - origin) * 1000)
    now_ms = int((now - origin) * 1000)
    if exchange.verdicts:
        tally.read(exchange.verdicts, started_ms, now_ms)
    calls = list(islice(_calls(exchange), MOST_CALLS + 1))
    row: dict[str, Any] = {
        "key": int((exchange.started - origin) * 1e7),  # ids are chosen by clients, but no two begin at once
        "id": word(exchange.id, LONGEST_ID),
        "tenant": word(exchange.tenant, LONGEST_ID),
        "model": word(exchange.model),
        "upstream": word(exchange.upstream),
        "route": exchange.route,
        "stream": exchange.stream,
        "start": started_ms,
        "asked": ms(account.asked_at),
        "first": ms(meter.first_at) if meter is not None and meter.reads else None,
        "answered": ms(account.answered_at),
        "pieces": meter.events if meter is not None else 0,
    }
    if len(calls) > 1:
        row["calls"] = [_call(call, started_ms) for call in calls[:MOST_CALLS]]
        row["more_calls"] = len(calls) > MOST_CALLS
    if exchange.verdicts:
        row["checks"] = [tally.passed, tally.violations, tally.unsure]
        row["marks"] = tally.marks.copy()
    if exchange.decisions:
        row["decisions"] = [_decision(one, started_ms) for one in islice(exchange.decisions, MOST_DECISIONS)]
    if exchange.notes:
        row["notes"] = len(exchange.notes)
    if exchange.difficulty is not None:
        row["difficulty"] = number(exchange.difficulty.score)
    if exchange.budget is not None and exchange.budget.effort is not None:
        row["effort"] = word(exchange.budget.effort)
    if ledger.slept:
        row["slept"] = number(ledger.slept)
    return row


def finished(exchange: Exchange, account: Account, origin: float, now: float, tally: Tally) -> dict[str, Any]:
    """The same for one that is over, with what it cost."""
    ledger = exchange.ledger
    row = glance(exchange, account, origin, now, tally)
    row["status"] = exchange.status
    row["outcome"] = exchange.outcome
    row["closed"] = int((now - origin) * 1000)
    row["tokens"] = [number(each) for each in (ledger.prompt, ledger.output, ledger.discarded, ledger.verify)]
    return row


def _calls(exchange: Exchange) -> Iterator[Call]:
    """Those on its ledger, and those of its side exchanges that are not there yet."""
    yield from exchange.ledger.calls
    for call in chain.from_iterable(child.ledger.calls for child in exchange.children):
        if not call.booked:
            yield call


def _call(call: Call, started_ms: int) -> list[Any]:
    """`[began, ended or null, purpose, phase, outcome]`"""
    began = started_ms + int(call.started_s * 1000)
    ended = None if call.outcome == "pending" else began + int(call.seconds * 1000)
    return [began, ended, call.purpose, call.phase, word(call.outcome)]


def _decision(decision: Decision, started_ms: int) -> list[Any]:
    """`[by, what, when or null, action or null]`: with an action it was an intervention."""
    at = None if decision.at_s is None else started_ms + int(decision.at_s * 1000)
    action = decision.detail.get("action")
    return [word(decision.by), word(decision.what), at, None if action is None else word(action)]


def word(value: object, most: int = LONGEST_WORD) -> str:
    """A short text that can be encoded and does not disturb what stands beside it, whatever it was."""
    text = str(value)[:most]
    if text.isprintable():
        return text
    return "".join([one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text])


def number(value: object) -> float:
    """A number that JavaScript reads as it is; upstreams and plugins may report anything."""
    if not isinstance(value, (int, float)) or not -_LARGEST < value < _LARGEST:  # so is what is not a number
        return 0
    return value
