"""Which exchanges the live page is shown: those on their way, looked at in turns, and a sample of those that ended.

Nothing is done while nobody watches. While somebody does, an exchange costs a few truth tests at its end; only the few
that are shown are looked into, and what is kept is bounded, however many there are.
"""

from __future__ import annotations

from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from predawn.proxy.live.board import Board
from predawn.proxy.live.glance import Tally, finished, glance
from predawn.proxy.live.sieve import Sieve

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

    from predawn.proxy.accounting import Account
    from predawn.proxy.exchange import Exchange

MOST_RUNNING = 24
"""Exchanges on their way that are shown."""
MOST_PLAIN = 8
MOST_NOTABLE = 8
"""Exchanges shown of those that ended in one turn, beside those whose way was shown."""


class Conversation(Protocol):
    """An exchange that is being served."""

    @property
    def seen(self) -> tuple[Exchange, Account]: ...


class Feed:
    """What happened since the last turn."""

    def __init__(self) -> None:
        self.is_watched = False
        """Set while the page is open somewhere; conversations look at it before they tell anything."""
        self.board = Board()
        self.origin = perf_counter()
        """What times are counted from."""
        self._running: dict[Conversation, Tally] = {}
        self._ended: list[dict[str, Any]] = []
        self._count = 0
        self._plain = Sieve(MOST_PLAIN)
        self._notable = Sieve(MOST_NOTABLE)

    def ended(self, conversation: Conversation, exchange: Exchange, account: Account) -> None:
        """An exchange is over. Errors, and those that a plugin did something about, are preferred."""
        self._count += 1
        tally = self._running.pop(conversation, None)
        if tally is None:
            if _is_notable(exchange):
                if not self._notable.passes():
                    return
            elif not self._plain.passes():
                return
            tally = Tally()
        self._ended.append(finished(exchange, account, self.origin, perf_counter(), tally))

    def turn(self, sets: Iterable[AbstractSet[Conversation]]) -> dict[str, Any]:
        """What to show now, of these conversations and of those that ended since the last turn."""
        now = perf_counter()
        ended, self._ended = self._ended, []
        count, self._count = self._count, 0
        self._plain.turn()
        self._notable.turn()
        sets = tuple(sets)
        running = self._choose(sets)
        shown = []
        for conversation, tally in running.items():
            exchange, account = conversation.seen
            shown.append(glance(exchange, account, self.origin, now, tally))
        return {
            "now": int((now - self.origin) * 1000),
            "running": shown,
            "in_flight": sum(map(len, sets)),
            "ended": ended,
            "ended_count": count,
        }

    def _choose(self, sets: tuple[AbstractSet[Conversation], ...]) -> dict[Conversation, Tally]:
        """Those that were shown and are still there, and others in the place of those that are not."""
        kept = {one: tally for one, tally in self._running.items() if any(one in found for found in sets)}
        for found in sets:
            free = MOST_RUNNING - len(kept)
            if free <= 0:
                break
            for one in islice((one for one in islice(found, 4 * MOST_RUNNING) if one not in kept), free):
                kept[one] = Tally()
        self._running = kept
        return kept

    def forget(self) -> None:
        """Nobody watches any more."""
        self.is_watched = False
        self._running = {}
        self._ended = []
        self._count = 0


def _is_notable(exchange: Exchange) -> bool:
    return bool(
        exchange.outcome != "ok"
        or exchange.verdicts
        or exchange.notes
        or exchange.decisions
        or len(exchange.ledger.calls) > 1
    )
