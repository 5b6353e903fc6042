"""What `confidence` has learnt, over restarts: read where it is first asked for, written behind the requests.

The store is not opened before a request is answered by `confidence`. Each row is a tenant's alone, and is compared with
its place again when it is read. Of servers on one database the last one that writes a place is remembered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from predawn.plugins.sampling.strategies.trust import MOST, Place, Trust, Trusts
from predawn.proxy.store_errors import StoreError

if TYPE_CHECKING:
    from predawn.plugins import App
    from predawn.proxy.store import Store

log = logging.getLogger("predawn.sampling")
PAUSE_S: Final = 2.0
"""Between two looks at what is to be read or written."""
LONGEST_PAUSE_S: Final = 60.0
"""The same, while the store cannot be used."""
RETENTION_S: Final = 30 * 86_400.0
"""What nobody added to for so long is deleted."""
DIGITS: Final = 6
CLOSE_S: Final = 10.0


class Keeping:
    """Lives as long as the server; its one task begins with the first request that needs it."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._trusts = Trusts()
        self._news = asyncio.Event()
        self._flushing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._is_cleared = False

    def of(self, place: Place) -> Trust:
        """What is known there; until the store has been read, only what was learnt since the start."""
        trust = self._trusts.of(place)
        if not trust.is_loaded:
            self.look()
        return trust

    def look(self) -> None:
        """There may be something to read or to write."""
        self._news.set()
        if self._task is None:
            self._task = self._app.tasks.spawn(self._run(), "sampling.keeping")

    async def _run(self) -> None:
        pause = PAUSE_S
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self.flush()
            except StoreError as exc:
                log.warning("what was learnt of sure answers waits in memory: %s", exc)
                self._news.set()
                pause = min(2 * pause, LONGEST_PAUSE_S)
            else:
                pause = PAUSE_S
            await self._app.clock.sleep(pause)

    async def flush(self) -> None:
        """Read what has not been read, and write what is new. Raises `StoreError`, and both wait on."""
        async with self._flushing:
            store, now = await self._app.store(), self._app.clock.now()
            for place, trust in list(self._trusts):
                if not trust.is_loaded:
                    trust.recall(await _read(store, place))
                if count := trust.unwritten:
                    await _write(store, place, trust.known, now)
                    trust.unwritten -= count
            if not self._is_cleared:
                await _clear(store, now - RETENTION_S)
                self._is_cleared = True

    async def aclose(self) -> None:
        """End the task, and write the rest."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.flush()
        except (StoreError, TimeoutError) as exc:
            log.warning("what was learnt of sure answers at the end is lost: %s", exc or "the store is too slow")


async def _read(store: Store, place: Place) -> list[tuple[float, bool]]:
    from predawn.proxy.tables import sampling_trust as table

    own = (table.c.tenant == place.tenant, table.c.model == place.model, table.c.effort == place.effort)
    async with store.read() as connection:
        row = (await connection.execute(table.select().where(*own))).mappings().first()
    if row is None or (row["tenant"], row["model"], row["effort"]) != place:
        return []
    return _known(row["known"])


async def _write(store: Store, place: Place, known: Sequence[tuple[float, bool]], now: float) -> None:
    from predawn.proxy.tables import sampling_trust as table

    row = {"known": [[round(sureness, DIGITS), int(confirmed)] for sureness, confirmed in known], "at": now}
    insert = store.insert(table).values(**place._asdict(), **row)
    key = [table.c.tenant, table.c.model, table.c.effort]
    async with store.begin() as connection:
        await connection.execute(insert.on_conflict_do_update(index_elements=key, set_=row))


async def _clear(store: Store, before: float) -> None:
    """Maintenance: of all tenants, what nobody added to since."""
    from predawn.proxy.tables import sampling_trust as table

    async with store.begin() as connection:
        await connection.execute(table.delete().where(table.c.at < before))


def _known(kept: Any) -> list[tuple[float, bool]]:
    """What a row says; what another version may have written otherwise is passed over."""
    pairs = [pair for pair in kept if isinstance(pair, list) and len(pair) == 2] if isinstance(kept, list) else []
    return [
        (float(sureness), bool(confirmed))
        for sureness, confirmed in pairs[-MOST:]
        if type(sureness) in {int, float} and type(confirmed) is int
    ]
