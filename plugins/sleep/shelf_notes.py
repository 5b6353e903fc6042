"""What sleep wrote, in the store: notes and anticipated answers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from predawn.plugins.sleep.contexts import Anticipated, Notes, NotesStatus
from predawn.plugins.sleep.shelf_contexts import ContextShelf, Row, count_up

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


class NotesShelf(ContextShelf):
    """The part of the shelf that holds notes; see `Shelf`."""

    async def add_notes(self, tenant: str, notes: Notes) -> bool:
        """Keep notes, replacing a candidate of the same id; what has been judged stays as it is.

        False if their version of the context is not kept any more.
        """
        from predawn.proxy.tables import notes as table

        insert = self._store.insert(table).values(tenant=tenant, **_notes_row(notes))
        values = {name: insert.excluded[name] for name in _notes_row(notes)}
        upsert = insert.on_conflict_do_update(
            index_elements=[table.c.tenant, table.c.id], set_=values, where=table.c.status == "candidate"
        )
        async with self._writing() as connection:
            if not await self._has_version(connection, tenant, notes.context_id, notes.version):
                return False
            await connection.execute(upsert)
        return True

    async def judge(self, tenant: str, notes: Notes) -> bool:
        """Give notes their verdict, `notes.status`, and whatever else they have become.

        Accepted ones are used from now on, on all servers; those accepted before become stale. False, and rejected, if
        the context is gone or has a newer version.
        """
        from sqlalchemy import select

        from predawn.proxy.tables import context_versions as versions
        from predawn.proxy.tables import contexts
        from predawn.proxy.tables import notes as table

        of_context = (contexts.c.tenant == tenant, contexts.c.id == notes.context_id)
        async with self._writing() as connection:
            change = await count_up(connection)
            if not await self._has_version(connection, tenant, notes.context_id, notes.version):
                return False
            present = await connection.scalar(select(contexts.c.version).where(*of_context))
            is_late = present != notes.version
            row = _notes_row(replace(notes, status="rejected") if is_late else notes)
            insert = self._store.insert(table).values(tenant=tenant, **row)
            await connection.execute(
                insert.on_conflict_do_update(index_elements=[table.c.tenant, table.c.id], set_=row)
            )
            if is_late or notes.status != "accepted":
                return not is_late
            earlier = (
                table.c.tenant == tenant,
                table.c.context_id == notes.context_id,
                table.c.status == "accepted",
                table.c.id != notes.id,
            )
            await connection.execute(table.update().where(*earlier).values(status="stale"))
            of_version = (
                versions.c.tenant == tenant,
                versions.c.context_id == notes.context_id,
                versions.c.version == notes.version,
            )
            await connection.execute(versions.update().where(*of_version).values(notes_id=notes.id))
            await connection.execute(contexts.update().where(*of_context).values(change=change))
        return True

    async def drop_candidates(self, tenant: str, notes_ids: Collection[str]) -> None:
        """Delete notes that nobody has judged."""
        from predawn.proxy.tables import notes as table

        dropped = (table.c.tenant == tenant, table.c.id.in_(list(notes_ids)), table.c.status == "candidate")
        async with self._writing() as connection:
            await connection.execute(table.delete().where(*dropped))

    async def verdicts(self, tenant: str, model: str) -> tuple[int, int]:
        """How many notes of a model were accepted, now or before, and how many rejected."""
        from sqlalchemy import func, select

        from predawn.proxy.tables import notes as table

        query = (
            select(table.c.status, func.count())
            .where(table.c.tenant == tenant, table.c.model == model, table.c.status != "candidate")
            .group_by(table.c.status)
        )
        async with self._store.read() as connection:
            counts = {status: int(count) for status, count in (await connection.execute(query)).all()}
        return counts.get("accepted", 0) + counts.get("stale", 0), counts.get("rejected", 0)

    async def note(self, tenant: str, notes_id: str) -> Notes | None:
        """Notes by their id, whatever their status."""
        from predawn.proxy.tables import notes as table

        query = table.select().where(table.c.tenant == tenant, table.c.id == notes_id)
        async with self._store.read() as connection:
            row = (await connection.execute(query)).mappings().first()
        return _notes(row) if row is not None and row["tenant"] == tenant else None

    async def notes(
        self, tenant: str, context_id: str, *, version: int | None = None, status: NotesStatus | None = None
    ) -> list[Notes]:
        """Notes about a context, newest first."""
        from predawn.proxy.tables import notes as table

        query = table.select().where(table.c.tenant == tenant, table.c.context_id == context_id)
        if version is not None:
            query = query.where(table.c.version == version)
        if status is not None:
            query = query.where(table.c.status == status)
        async with self._store.read() as connection:
            rows = (await connection.execute(query.order_by(table.c.made_at.desc(), table.c.id))).mappings().all()
        return [_notes(row) for row in rows if row["tenant"] == tenant]

    async def add_anticipated(self, tenant: str, found: Sequence[Anticipated]) -> int:
        """Keep anticipated answers, replacing those of the same id; returns how many have a version that is kept.

        Servers learn of it as of any change of a context.
        """
        from predawn.proxy.tables import anticipated as table
        from predawn.proxy.tables import contexts

        kept = 0
        changes: dict[str, int] = {}
        async with self._writing() as connection:
            for one in sorted(found, key=lambda one: one.context_id):
                if one.context_id not in changes:
                    changes[one.context_id] = await count_up(connection)
                if not await self._has_version(connection, tenant, one.context_id, one.version):
                    continue
                place = (contexts.c.tenant == tenant, contexts.c.id == one.context_id)
                await connection.execute(contexts.update().where(*place).values(change=changes[one.context_id]))
                await connection.execute(table.delete().where(table.c.tenant == tenant, table.c.id == one.id))
                await connection.execute(table.insert().values(tenant=tenant, **_anticipated_row(one)))
                kept += 1
        return kept

    async def anticipated(self, tenant: str, context_id: str, version: int | None = None) -> list[Anticipated]:
        """Anticipated answers about a context, in the order in which they were made."""
        from predawn.proxy.tables import anticipated as table

        query = table.select().where(table.c.tenant == tenant, table.c.context_id == context_id)
        if version is not None:
            query = query.where(table.c.version == version)
        async with self._store.read() as connection:
            rows = (await connection.execute(query.order_by(table.c.made_at, table.c.id))).mappings().all()
        return [_anticipated(row) for row in rows if row["tenant"] == tenant]

    async def _has_version(self, connection: AsyncConnection, tenant: str, context_id: str, version: int) -> bool:
        from sqlalchemy import select

        from predawn.proxy.tables import context_versions as versions

        query = select(versions.c.version).where(
            versions.c.tenant == tenant, versions.c.context_id == context_id, versions.c.version == version
        )
        alive = await self._is_alive(connection, tenant, context_id)
        return alive and await connection.scalar(query) is not None


def clean(text: str) -> str:
    """Text that every database takes: PostgreSQL stores no NUL, UTF-8 no half characters."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _notes_row(notes: Notes) -> dict[str, Any]:
    return {
        "id": notes.id,
        "context_id": notes.context_id,
        "version": notes.version,
        "status": notes.status,
        "text": clean(notes.text),
        "tokens": notes.tokens,
        "passes": notes.passes,
        "made_at": notes.made_at,
        "sleep_tokens": notes.sleep_tokens,
        "model": notes.model,
        "provenance": dict(notes.provenance),
    }


def _notes(row: Row) -> Notes:
    return Notes(**_without_tenant(row))


def _anticipated_row(one: Anticipated) -> dict[str, Any]:
    return {
        "id": one.id,
        "context_id": one.context_id,
        "version": one.version,
        "question": clean(one.question),
        "normalised": clean(one.normalised),
        "answer": clean(one.answer),
        "verified": one.verified,
        "model": one.model,
        "conditions": one.conditions,
        "made_at": one.made_at,
        "sleep_tokens": one.sleep_tokens,
        "provenance": dict(one.provenance),
    }


def _anticipated(row: Row) -> Anticipated:
    return Anticipated(**_without_tenant(row))


def _without_tenant(row: Row) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "tenant"}
