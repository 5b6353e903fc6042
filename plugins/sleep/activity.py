"""Tells other processes on the same store that a person is being answered, so that their sleep makes room, too.

One row for each place counts up while its requests come and last. Whoever sees it go up further than by its own steps
knows that somebody else was there; nobody's clock is compared with another's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from predawn.plugins.sleep.outage import Outage
from predawn.proxy.store_errors import StoreError

if TYPE_CHECKING:
    from predawn.plugins.sleep.gate import Gate
    from predawn.proxy.clock import Clock
    from predawn.proxy.store import Store, Visit

Beats: TypeAlias = "list[tuple[str, int]]"
"""Places, and how far each has counted."""
EVERY_S = 0.25
"""Twice this is how much later others that make calls learn of a request."""
RESTS = 3
"""Looks left out while there is nothing to tell and no call to end, if `idle_s` keeps the gate closed for as long."""


class Activity:
    """One process's part."""

    def __init__(self, store: Store, gate: Gate) -> None:
        self._store = store
        self._gate = gate
        self._came: set[str] = set()
        self._beats: dict[str, int] = {}
        self._has_looked = False

    def came(self, place: str) -> None:
        """A person's request begins; told at once to this process's own gate, and from here to the others'."""
        self._came.add(place)

    async def run(self, clock: Clock) -> None:
        """Tell and hear until cancelled."""
        outage = Outage("other processes cannot be told of requests, nor heard")
        rests, most = 0, RESTS if self._gate.idle_s >= (RESTS + 2) * EVERY_S else 0
        while True:
            if rests and not (self._came or self._gate.busy or self._gate.is_calling):
                rests -= 1
            else:
                rests = most
                with outage.survived():
                    await self.look()
            await clock.sleep(EVERY_S)

    async def look(self) -> None:
        """Tell what happened here and hear what happened elsewhere. Raises `StoreError`."""
        came, self._came = self._came, set()
        here = sorted(came.union(self._gate.busy))
        try:
            # in one trip: with `ContextShelf.latest_change`, 21 ms of CPU a second of an idle server became 17
            told, rows = await self._store.visit(lambda visit: self._exchange(visit, here))
        except StoreError:
            self._came |= came  # to be told by the next look
            raise
        for place, beats in told:
            self._heard(place, beats - 1)
            self._beats[place] = beats
        for place, beats in rows:
            self._heard(place, beats)
        self._has_looked = True

    def _exchange(self, visit: Visit, here: Sequence[str]) -> tuple[Beats, Beats]:
        """Count up these places: what each is at now, and what all are. Runs in a thread."""
        from sqlalchemy import select

        from predawn.proxy.tables import sleep_activity as table

        told = []
        with visit.begin() if here else visit.read() as connection:
            for place in here:
                insert = self._store.insert(table).values(place=place, beats=1)
                upsert = insert.on_conflict_do_update(
                    index_elements=[table.c.place], set_={"beats": table.c.beats + 1}
                ).returning(table.c.beats)
                told.append((place, connection.execute(upsert).scalar_one()))
            rows = connection.execute(select(table.c.place, table.c.beats))
            return told, [(place, beats) for place, beats in rows]

    def _heard(self, place: str, beats: int) -> None:
        """So many beats are not our own latest one."""
        known = self._beats.get(place, 0 if self._has_looked else beats)
        self._beats[place] = beats
        if beats > known:
            self._gate.heard(place)
