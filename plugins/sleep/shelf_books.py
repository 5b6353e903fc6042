"""The books of sleep in the store: uses, decisions, estimates, jobs and what each day cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

from predawn.plugins.sleep.contexts import Estimate, Spent, Use
from predawn.plugins.sleep.shelf_contexts import ContextShelf

MEMORY = 200
"""After so many answers, an estimate is a moving average: old ones fade."""


class BookShelf(ContextShelf):
    """The part of the shelf that holds the books; see `Shelf`."""

    async def book(self, tenant: str, uses: Sequence[Use]) -> None:
        """Note uses of a tenant's contexts, all in one transaction; a use that is noted already stays as it is."""
        from predawn.proxy.tables import context_uses as table
        from predawn.proxy.tables import contexts

        rows = [_use_row(tenant, use) for use in sorted(uses, key=lambda use: use.context_id)]
        async with self._store.begin() as connection:
            for row in rows:
                if not await self._is_alive(connection, tenant, row["context_id"]):
                    continue
                insert = self._store.insert(table).values(**row).on_conflict_do_nothing()
                if not (await connection.execute(insert)).rowcount:
                    continue
                count = contexts.update().where(contexts.c.tenant == tenant, contexts.c.id == row["context_id"])
                await connection.execute(count.values(uses=contexts.c.uses + 1, last_used_at=row["at"]))

    async def uses(self, tenant: str, context_id: str, *, limit: int = 100) -> list[Use]:
        """The latest uses of a context, newest first."""
        from predawn.proxy.tables import context_uses as table

        query = (
            table.select()
            .where(table.c.tenant == tenant, table.c.context_id == context_id)
            .order_by(table.c.at.desc())
            .limit(limit)
        )
        async with self._store.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [
            Use(**{name: value for name, value in row.items() if name != "tenant"})
            for row in rows
            if row["tenant"] == tenant
        ]

    async def times_used(self, tenant: str, context_id: str, notes_id: str) -> int:
        """How often notes, or an anticipated answer, were used."""
        from sqlalchemy import func, select

        from predawn.proxy.tables import context_uses as table

        query = select(func.count()).where(
            table.c.tenant == tenant, table.c.context_id == context_id, table.c.notes_id == notes_id
        )
        async with self._store.read() as connection:
            return int(await connection.scalar(query) or 0)

    async def regret(self, tenant: str, exchange_id: str) -> int:
        """Note that the answer of an exchange was wrong; returns how many uses that spoils."""
        from predawn.proxy.tables import context_uses as table

        spoilt = (table.c.tenant == tenant, table.c.exchange_id == exchange_id, table.c.regret.is_(False))
        async with self._store.begin() as connection:
            return int((await connection.execute(table.update().where(*spoilt).values(regret=True))).rowcount)

    async def decide(self, tenant: str, context_id: str, version: int, decision: Mapping[str, Any]) -> None:
        """Keep the latest answer to "is it worth it?" with its numbers."""
        from predawn.proxy.tables import context_decisions as table

        row = {
            "tenant": tenant,
            "context_id": context_id,
            "version": version,
            "at": self._clock.now(),
            "decision": dict(decision),
        }
        insert = self._store.insert(table)
        key = [table.c.tenant, table.c.context_id, table.c.version]
        values = {"at": insert.excluded.at, "decision": insert.excluded.decision}
        async with self._store.begin() as connection:
            if await self._is_alive(connection, tenant, context_id):
                await connection.execute(insert.values(**row).on_conflict_do_update(index_elements=key, set_=values))

    async def decision(self, tenant: str, context_id: str) -> Mapping[str, Any] | None:
        """The decision about a context's newest version that has one, with `at` and `version`."""
        from predawn.proxy.tables import context_decisions as table

        query = (
            table.select()
            .where(table.c.tenant == tenant, table.c.context_id == context_id)
            .order_by(table.c.version.desc())
            .limit(1)
        )
        async with self._store.read() as connection:
            row = (await connection.execute(query)).mappings().first()
        if row is None or row["tenant"] != tenant:
            return None
        return {**row["decision"], "at": row["at"], "version": row["version"]}

    async def observe(  # noqa: PLR0917 - a row's key and what goes into it
        self, tenant: str, context_id: str, model: str, kind: str, value: float, count: int = 1
    ) -> None:
        """Let a value, or the mean of `count` values, into a running mean, such as the output tokens of answers without
        notes (`plain`) and with them (`noted`); the latest `MEMORY` weigh most."""
        from sqlalchemy import case

        from predawn.proxy.tables import context_estimates as table

        insert = self._store.insert(table)
        row = {"tenant": tenant, "context_id": context_id, "model": model, "kind": kind, "count": count, "mean": value}
        most = max(MEMORY, count)
        weight = case((table.c.count + count < most, table.c.count + count), else_=most)
        step = (insert.excluded.mean - table.c.mean) * float(count) / weight
        values = {"count": table.c.count + count, "mean": table.c.mean + step}
        key = [table.c.tenant, table.c.context_id, table.c.model, table.c.kind]
        async with self._store.begin() as connection:
            if await self._is_alive(connection, tenant, context_id):
                await connection.execute(insert.values(**row).on_conflict_do_update(index_elements=key, set_=values))

    async def estimate(self, tenant: str, context_id: str, model: str, kind: str) -> Estimate | None:
        """The running mean for one model and context; `None` before the first answer."""
        from predawn.proxy.tables import context_estimates as table

        query = table.select().where(
            table.c.tenant == tenant, table.c.context_id == context_id, table.c.model == model, table.c.kind == kind
        )
        async with self._store.read() as connection:
            row = (await connection.execute(query)).mappings().first()
        return Estimate(row["count"], row["mean"]) if row is not None and row["tenant"] == tenant else None

    async def spend(self, tenant: str, spent: Spent, *, at: float | None = None) -> Spent:
        """Book what calls asleep cost, on the day (UTC) of `at` or of now; returns the day's total on all machines."""
        from predawn.proxy.tables import sleep_spend as table

        insert = self._store.insert(table)
        counts = {"tokens": spent.tokens, "nano_usd": spent.nano_usd, "calls": spent.calls}
        values = {name: table.c[name] + insert.excluded[name] for name in counts}
        upsert = (
            insert.values(tenant=tenant, day=self._day(at), **counts)
            .on_conflict_do_update(index_elements=[table.c.tenant, table.c.day], set_=values)
            .returning(table.c.tokens, table.c.nano_usd, table.c.calls)
        )
        async with self._store.begin() as connection:
            row = (await connection.execute(upsert)).one()
        return Spent(row.tokens, row.nano_usd, row.calls)

    async def spent(self, tenant: str, *, at: float | None = None) -> Spent:
        """What a tenant's sleep cost on the day (UTC) of `at` or of now, on all machines."""
        from predawn.proxy.tables import sleep_spend as table

        query = table.select().where(table.c.tenant == tenant, table.c.day == self._day(at))
        async with self._store.read() as connection:
            row = (await connection.execute(query)).first()
        return Spent(row.tokens, row.nano_usd, row.calls) if row is not None and row.tenant == tenant else Spent()

    def _day(self, at: float | None) -> date:
        return datetime.fromtimestamp(self._clock.now() if at is None else at, UTC).date()

    async def add_job(self, tenant: str, context_id: str, version: int, job_id: str) -> bool:
        """Note before a job is submitted that it will hold something of a context; False if that is forgotten.

        A job whose context is gone must not be submitted: nobody would purge it.
        """
        async with self._store.begin() as connection:
            if not await self._is_alive(connection, tenant, context_id):
                return False
            await self._add_jobs(connection, tenant, context_id, version, [job_id])
        return True

    async def jobs(self, tenant: str, context_id: str) -> list[str]:
        """The jobs that may hold something of a context, oldest first."""
        from predawn.proxy.tables import context_jobs as table

        query = table.select().where(
            table.c.tenant == tenant, table.c.context_id == context_id, table.c.orphan.is_(False)
        )
        async with self._store.read() as connection:
            rows = (await connection.execute(query.order_by(table.c.created_at, table.c.job_id))).all()
        return [row.job_id for row in rows if row.tenant == tenant]


def _use_row(tenant: str, use: Use) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "exchange_id": use.exchange_id,
        "context_id": use.context_id,
        "version": use.version,
        "notes_id": use.notes_id,
        "kind": use.kind,
        "at": use.at,
        "model": use.model.replace("\0", ""),
        "age_s": use.age_s,
        "tokens_saved": use.tokens_saved,
        "stale": use.stale,
        "regret": use.regret,
    }
