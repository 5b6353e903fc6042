"""The store of sleep: contexts, what was written about them, and the books.

Every method but those of maintenance takes a tenant, which stands in each statement's WHERE and is compared again with
what comes back. A context that is forgotten leaves a gravestone, its id and its version's number, until every server
has learnt of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from predawn.plugins.sleep.contexts import Progress
from predawn.plugins.sleep.shelf_books import BookShelf
from predawn.plugins.sleep.shelf_contexts import Came, ContextLimit, count_up, find
from predawn.plugins.sleep.shelf_notes import NotesShelf
from predawn.proxy.store import BUSY_TIMEOUT_S

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["Came", "ContextLimit", "Forgotten", "Shelf"]

GRAVESTONE_S = 86_400.0
"""How long an id's version goes on counting after it was forgotten: longer than any job of it can go on."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """A gravestone whose jobs are still to be purged."""

    tenant: str
    context_id: str
    job_ids: tuple[str, ...]


class Shelf(NotesShelf, BookShelf):
    """Everything sleep keeps, in a SQLite file or in a PostgreSQL that several machines share.

    Methods raise `StoreError` when the store cannot be read or written.
    """

    _has_rests = False
    """Whether something of forgotten contexts may still stand in SQLite's log."""

    async def forget(self, tenant: str, context_id: str) -> list[str] | None:
        """Delete a context and everything derived from it; returns the jobs that the job store is to be purged of.

        `None` if there is none. Call `purged` once the jobs are gone: until then `unpurged` tells of them.
        """
        from predawn.proxy.tables import context_jobs, contexts

        async with self._writing() as connection:
            change = await count_up(connection)
            row = await find(connection, tenant, context_id)
            if row is None or row["state"] == "forgotten":
                return None
            place = (contexts.c.tenant == tenant, contexts.c.id == context_id)
            await connection.execute(
                contexts.update().where(*place).values(**_emptied(), change=change, changed_at=self._clock.now())
            )
            await _delete_derived(connection, tenant, context_id)  # no sooner: now nothing is added any more
            held = (context_jobs.c.tenant == tenant, context_jobs.c.context_id == context_id)
            await connection.execute(context_jobs.update().where(*held).values(orphan=True))
            jobs = [row.job_id for row in (await connection.execute(context_jobs.select().where(*held))).all()]
        await self._empty_log()
        return jobs

    async def purged(self, tenant: str, context_id: str, job_ids: Sequence[str]) -> None:
        """Note that the job store holds nothing of these jobs any more."""
        from predawn.proxy.tables import context_jobs as table

        async with self._store.begin() as connection:
            await connection.execute(
                table.delete().where(
                    table.c.tenant == tenant, table.c.context_id == context_id, table.c.job_id.in_(list(job_ids))
                )
            )

    async def unpurged(self, limit: int = 100) -> list[Forgotten]:
        """Maintenance: forgotten contexts, of all tenants, whose jobs were not purged because somebody crashed."""
        from predawn.proxy.tables import context_jobs as table

        query = table.select().where(table.c.orphan.is_(True)).limit(limit)
        async with self._store.read() as connection:
            rows = (await connection.execute(query)).all()
        jobs: dict[tuple[str, str], list[str]] = {}
        for row in rows:
            jobs.setdefault((row.tenant, row.context_id), []).append(row.job_id)
        return [Forgotten(tenant, context_id, tuple(ids)) for (tenant, context_id), ids in jobs.items()]

    async def expired(self, limit: int = 100) -> list[tuple[str, str]]:
        """Maintenance: tenants and ids of contexts whose time is over; `forget` each."""
        from sqlalchemy import select

        from predawn.proxy.tables import contexts

        query = (
            select(contexts.c.tenant, contexts.c.id)
            .where(contexts.c.expires_at <= self._clock.now(), contexts.c.state != "forgotten")
            .limit(limit)
        )
        async with self._store.read() as connection:
            return [(row.tenant, row.id) for row in (await connection.execute(query)).all()]

    async def prolong(self, tenant: str, context_id: str, expires_at: float) -> None:
        """Let a discovered context live on, because it was used."""
        from predawn.proxy.tables import contexts

        place = (
            contexts.c.tenant == tenant,
            contexts.c.id == context_id,
            contexts.c.source == "discovered",
            contexts.c.expires_at < expires_at,
        )
        async with self._store.begin() as connection:
            await connection.execute(contexts.update().where(*place).values(expires_at=expires_at))

    async def clear(self, *, keep_uses_s: float) -> None:
        """Maintenance: remove old gravestones, and uses older than `keep_uses_s`, of all tenants. Finish what `forget`
        left."""
        from sqlalchemy import func, select

        from predawn.proxy.tables import context_changes as changes
        from predawn.proxy.tables import context_uses, contexts

        now = self._clock.now()
        old = (contexts.c.state == "forgotten", contexts.c.changed_at < now - GRAVESTONE_S)
        async with self._store.begin() as connection:
            await connection.execute(context_uses.delete().where(context_uses.c.at < now - keep_uses_s))
            newest = await connection.scalar(select(func.max(contexts.c.change)).where(*old))
            if newest is not None:
                await connection.execute(contexts.delete().where(*old))
                higher = (changes.c.id == 1, changes.c.gone < newest)
                await connection.execute(changes.update().where(*higher).values(gone=newest))
        if self._has_rests:
            await self._empty_log()

    async def _empty_log(self) -> None:
        """Move SQLite's write-ahead log, where deleted text still stands, into the file; where somebody reads it now,
        `clear` tries again."""
        if self._store.dialect == "sqlite":
            async with self._store.read() as connection:
                await connection.exec_driver_sql("COMMIT")
                await connection.exec_driver_sql("PRAGMA busy_timeout = 100")
                done = (await connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")).one()
                self._has_rests = bool(done[0])  # 1: it was busy
                await connection.exec_driver_sql(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000:.0f}")
                await connection.exec_driver_sql("BEGIN")


async def _delete_derived(connection: AsyncConnection, tenant: str, context_id: str) -> None:
    """All but the context's own row and the list of its jobs."""
    from predawn.proxy import tables

    for table in (
        tables.context_versions,
        tables.notes,
        tables.anticipated,
        tables.context_uses,
        tables.context_decisions,
        tables.context_estimates,
    ):
        await connection.execute(table.delete().where(table.c.tenant == tenant, table.c.context_id == context_id))


def _emptied() -> dict[str, object]:
    return {
        "state": "forgotten",
        "model": "",
        "namespace": "",
        "digest": b"",
        "tokens": 0,
        "options": {},
        "progress": msgspec.to_builtins(Progress(state="forgotten")),
        "uses": 0,
        "last_used_at": None,
        "expires_at": None,
    }
