"""Finished exchanges on their way to the store: a bounded buffer, and a task that empties it in batches."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from predawn.plugins.record.snapshot import Snapshot
from predawn.proxy import history
from predawn.proxy.store_errors import StoreError

if TYPE_CHECKING:
    from predawn.proxy.clock import Clock
    from predawn.proxy.store import Store

OpenStore: TypeAlias = "Callable[[], Awaitable[Store]]"
log = logging.getLogger("predawn.record")

BATCH = 2000
MOST_AT_ONCE = 4096
"""Rows in one transaction when many wait: on a busy loop each of its steps takes a turn among the requests."""
LIMIT = 20_000
"""Exchanges kept while the store does not take them, about 2 kB each; beyond it the oldest are dropped."""
MAX_PAUSE_S = 30.0
CLOSE_S = 10.0
"""How long shutdown waits for the last rows."""


class Writer:
    """Never blocks who adds. A row is written once its exchange is over, whole, or not at all."""

    def __init__(self, flush_s: float, limit: int = LIMIT) -> None:
        self._flush_s = flush_s
        self._limit = limit
        self._buffer: deque[Snapshot] = deque()
        self._writing: list[Snapshot] = []
        self._some = asyncio.Event()
        self._full = asyncio.Event()
        self.opened = asyncio.Event()
        """Set once something was written."""
        self.dropped = 0
        """Exchanges that were never written."""

    def add(self, snapshot: Snapshot) -> None:
        buffer = self._buffer
        buffer.append(snapshot)
        size = len(buffer)
        if size == 1:
            self._some.set()
        elif size == BATCH:
            self._full.set()
        elif size > self._limit:
            buffer.popleft()
            self._drop(1)

    def waiting(self) -> Iterator[Snapshot]:
        """What is not in the store yet, oldest first."""
        yield from self._writing
        yield from self._buffer

    async def run(self, open_store: OpenStore, clock: Clock) -> None:
        """Write what arrives, forever; while the store fails, keep the rows and try again after a pause."""
        pause_s = 0.0
        while True:
            await self._some.wait()
            await self._gather()
            problem = await self._try(open_store)
            if problem is None:
                pause_s = 0.0
                continue
            if not pause_s:
                log.warning("exchanges wait to be recorded: %s", problem)
            pause_s = min(max(1.0, pause_s * 2), MAX_PAUSE_S)
            await clock.sleep(pause_s)

    async def _gather(self) -> None:
        """Wait until a batch is full, but no longer than `flush_s`."""
        if len(self._buffer) < BATCH and not self._writing:
            self._full.clear()
            try:
                async with asyncio.timeout(self._flush_s):
                    await self._full.wait()
            except TimeoutError:
                return

    async def _try(self, open_store: OpenStore) -> Exception | None:
        try:
            await self.flush(await open_store())
        except StoreError as exc:
            return exc
        return None

    async def flush(self, store: Store) -> None:
        """Write all that waits, in batches. Raises `StoreError`; what was not written then waits on."""
        while self._buffer or self._writing:
            if not self._writing:
                self._writing = list(islice(self._buffer, MOST_AT_ONCE))
                for _ in self._writing:
                    self._buffer.popleft()
            await self._write(store, self._writing)
            self._writing = []
            self.opened.set()
        self._some.clear()

    async def _write(self, store: Store, snapshots: list[Snapshot]) -> None:
        from sqlalchemy.exc import StatementError  # the errors of a row; those of the store are `StoreError`s

        try:
            await history.write(store, snapshots)
        except (StatementError, OverflowError):
            for snapshot in snapshots:  # one of them is to blame, and must not hold up the others
                try:
                    await history.write(store, [snapshot])
                except (StatementError, OverflowError):
                    log.exception("exchange %s cannot be recorded", snapshot.id)
                    self._drop(1)

    async def close(self, open_store: OpenStore) -> None:
        """Write the rest, within reason."""
        if not (self._buffer or self._writing):
            return
        problem: Exception | None = None
        try:
            async with asyncio.timeout(CLOSE_S):
                problem = await self._try(open_store)
        except TimeoutError as exc:
            problem = exc
        if problem is not None:
            left = sum(1 for _ in self.waiting())
            self.dropped += left
            log.error("%d exchanges are not recorded: %s", left, problem or "the store is too slow")

    def _drop(self, count: int) -> None:
        if not self.dropped & (self.dropped + count - 1):  # at powers of two: a flood must not flood the log
            log.error("%d exchanges dropped: the store does not keep up", self.dropped + count)
        self.dropped += count


async def keep_retention(writer: Writer, open_store: OpenStore, clock: Clock, retention_s: float) -> None:
    """Delete old exchanges once an hour, a small transaction at a time so that requests' rows get in between."""
    await writer.opened.wait()
    while True:
        try:
            store = await open_store()
            while await history.purge(store, clock.now() - retention_s) == history.PURGE_BATCH:
                await clock.sleep(0.1)
        except StoreError as exc:
            log.warning("old exchanges could not be deleted: %s", exc)
        await clock.sleep(3600)
