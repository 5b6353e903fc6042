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
MOST_TROUBLED = 8
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
        self._troubled = Sieve(MOST_TROUBLED)

    def ended(self, conversation: Conversation, exchange: Exchange, account: Account) -> None:
        """An exchange is over, and all that was still found out about it."""
        self._count += 1
        tally = self._running.pop(conversation, None)
        if tally is None:
            if not self._sieve(exchange).passes():
                return
            tally = Tally()
        self._ended.append(finished(exchange, account, self.origin, perf_counter(), tally))

    def turn(self, sets: Iterable[AbstractSet[Conversation]]) -> dict[str, Any]:
        """What to show now, of these conversations and of those that ended since the last turn."""
        now = perf_counter()
        ended, self._ended = self._ended, []
        count, self._count = self._count, 0
        for sieve in (self._plain, self._notable, self._troubled):
            sieve.turn()
        sets = tuple(sets)
        self._choose(sets)
        shown = []
        for conversation, tally in self._running.items():
            exchange, account = conversation.seen
            shown.append(glance(exchange, account, self.origin, now, tally))
        return {
            "now": int((now - self.origin) * 1000),
            "running": shown,
            "in_flight": sum(map(len, sets)),
            "ended": ended,
            "ended_count": count,
        }

    def _choose(self, sets: tuple[AbstractSet[Conversation], ...]) -> None:
        """Let others be shown in the place of those that ended.

        Who is shown stays until it is closed: also when it is answered, and so in no set any more, and something is
        still found out about it.
        """
        shown = self._running
        for one in [one for one in shown if one.seen[0].is_closed and not any(one in found for found in sets)]:
            del shown[one]  # nobody told of its end
        for found in sets:
            free = MOST_RUNNING - len(shown)
            if free <= 0:
                break
            for one in list(islice((one for one in islice(found, 4 * MOST_RUNNING) if one not in shown), free)):
                shown[one] = Tally()

    def _sieve(self, exchange: Exchange) -> Sieve:
        """What went wrong, or was stepped in on, is not lost among what plugins did, nor that among all others."""
        if exchange.outcome != "ok" or any("action" in decision.detail for decision in exchange.decisions):
            return self._troubled
        is_notable = exchange.decisions or exchange.notes or exchange.verdicts or len(exchange.ledger.calls) > 1
        return self._notable if is_notable else self._plain

    def forget(self) -> None:
        """Nobody watches any more."""
        self.is_watched = False
        self._running = {}
        self._ended = []
        self._count = 0
