"""Contexts and their versions in the store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from predawn.plugins.sleep.contexts import SLEEPABLE, Context, ContextState, Progress, Source
from predawn.plugins.sleep.drafts import Draft, continues, decode_options, decode_parts, encode_parts
from predawn.plugins.sleep.prefix import DIGEST_BYTES

if TYPE_CHECKING:
    from sqlalchemy import Update
    from sqlalchemy.ext.asyncio import AsyncConnection

    from predawn.proxy.clock import Clock
    from predawn.proxy.store import Store, Visit

Row: TypeAlias = Mapping[Any, Any]
Came: TypeAlias = Literal["created", "changed", "same"]
LARGE_TOKENS = 8000
KEPT_VERSIONS = 8
"""Older ones are thrown away with their notes."""
_decode = msgspec.json.Decoder(tuple[dict[str, Any], ...]).decode


class ContextLimit(Exception):  # noqa: N818 - a limit is no fault
    """A tenant has as much as it may have: `most` contexts of a source, or `most` bytes of content in all.

    `can_make_room` says whether it would fit if discovered contexts were forgotten.
    """

    def __init__(
        self, most: int, unit: Literal["contexts", "bytes"] = "contexts", *, can_make_room: bool = False
    ) -> None:
        super().__init__(f"there are {most} {unit} already, and there may be no more")
        self.most = most
        self.unit: Literal["contexts", "bytes"] = unit
        self.can_make_room = can_make_room


@dataclass(frozen=True, slots=True)
class KnownVersion:
    """What the index needs of one version."""

    version: int
    model: str
    namespace: str
    links: tuple[bytes, ...]
    tokens: int
    base_version: int | None
    notes_id: str | None
    large: tuple[tuple[int, int], ...] = ()
    """Places and tokens of its large messages: at least `LARGE_TOKENS`, a quarter of their bytes."""


@dataclass(frozen=True, slots=True)
class Change:
    """A context that is new, different or gone."""

    change: int
    tenant: str
    context_id: str
    source: Source
    is_forgotten: bool
    version: int
    expires_at: float | None
    versions: tuple[KnownVersion, ...]


class ContextShelf:
    """The part of the shelf that holds contexts; see `Shelf`."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that replaces or deletes content: SQLite overwrites it with zeros, whoever did it."""
        async with self._store.begin() as connection:
            if self._store.dialect == "sqlite":
                await connection.exec_driver_sql("PRAGMA secure_delete = ON")
            yield connection

    async def _is_alive(self, connection: AsyncConnection, tenant: str, context_id: str) -> bool:
        """True if there is such a context, which then stays until the transaction ends.

        Whatever is written about a context asks this first, so that nothing appears after it was forgotten.
        """
        from sqlalchemy import select

        from predawn.proxy.tables import contexts

        query = select(contexts.c.id).where(
            contexts.c.tenant == tenant, contexts.c.id == context_id, contexts.c.state != "forgotten"
        )
        if self._store.dialect != "sqlite":  # where a transaction that writes is alone
            query = query.with_for_update()
        return await connection.scalar(query) is not None

    async def put(self, tenant: str, draft: Draft, *, most: int, most_bytes: int | None = None) -> tuple[Context, Came]:
        """Add a context, or give one a new version, or find that it is there as it is.

        Options and expiry are replaced in any case. Raises `ContextLimit` if a new one would be more than `most` of its
        source, or if its content and that of all others would be more than `most_bytes`.
        """
        from predawn.proxy.tables import contexts

        now = self._clock.now()
        async with self._writing() as connection:
            change = await count_up(connection)
            row = await find(connection, tenant, draft.id)
            is_there = row is not None and row["state"] != "forgotten"
            came: Came = "created"
            if row is not None and is_there:
                came = "same" if await _is_same(connection, row, draft) else "changed"
            if came != "same" and most_bytes is not None:
                await self._check_bytes(connection, tenant, draft, most_bytes)
            if not is_there:
                await _check_count(connection, tenant, draft.source, most)
            version = 1 if row is None else row["version"] + (came != "same")
            given = {
                "source": draft.source,
                "options": msgspec.to_builtins(draft.options),
                "expires_at": draft.expires_at,
                "change": change,
            }
            if came != "same":
                given |= _content(draft, version, now)
            if came == "created":
                given |= {"created_at": now, "uses": 0, "last_used_at": None}
            if row is None:
                await connection.execute(contexts.insert().values(tenant=tenant, id=draft.id, **given))
            else:
                place = (contexts.c.tenant == tenant, contexts.c.id == draft.id)
                await connection.execute(contexts.update().where(*place).values(**given))
            if came != "same":
                await _add_version(connection, tenant, draft, version, now)
        context = await self.get(tenant, draft.id)
        if context is None:  # forgotten by somebody else in this moment
            context = _drafted(tenant, draft, version, now)
        return context, came

    async def _check_bytes(self, connection: AsyncConnection, tenant: str, draft: Draft, most: int) -> None:
        """Earlier versions keep no content, so the sizes of what is there are those of present versions."""
        from sqlalchemy import LargeBinary, cast, func, select

        from predawn.proxy.tables import context_versions as versions
        from predawn.proxy.tables import contexts

        text = versions.c.messages
        is_sqlite = self._store.dialect == "sqlite"  # which knows octet_length since 3.43 only
        size = func.length(cast(text, LargeBinary)) if is_sqlite else func.octet_length(text)
        its_context = (contexts.c.tenant == versions.c.tenant) & (contexts.c.id == versions.c.context_id)
        query = (
            select(contexts.c.source, func.sum(size))
            .select_from(versions.join(contexts, its_context))
            .where(versions.c.tenant == tenant, versions.c.context_id != draft.id)
            .group_by(contexts.c.source)
        )
        sizes = {source: int(total) for source, total in (await connection.execute(query)).all()}
        if sum(sizes.values()) + draft.size > most:
            raise ContextLimit(most, "bytes", can_make_room=sizes.get("registered", 0) + draft.size <= most)

    async def longest_unused(self, tenant: str) -> str | None:
        """The id of the discovered context that was of no use for longest; `None` if this tenant has none."""
        from sqlalchemy import select

        from predawn.proxy.tables import contexts

        query = (
            select(contexts.c.id)
            .where(contexts.c.tenant == tenant, contexts.c.source == "discovered", contexts.c.state != "forgotten")
            # each use lets it expire later; between those that expire together the books tell
            .order_by(
                contexts.c.expires_at, contexts.c.last_used_at.nulls_first(), contexts.c.created_at, contexts.c.id
            )
            .limit(1)
        )
        async with self._store.read() as connection:
            found: str | None = await connection.scalar(query)
        return found

    async def get(self, tenant: str, context_id: str) -> Context | None:
        """One context with its content, or `None` if this tenant has none of this id."""
        from sqlalchemy import select

        from predawn.proxy.tables import context_versions as versions
        from predawn.proxy.tables import contexts

        query = (
            select(contexts, versions.c.parts, versions.c.messages, versions.c.notes_id, versions.c.base_version)
            .join(
                versions,
                (versions.c.tenant == contexts.c.tenant)
                & (versions.c.context_id == contexts.c.id)
                & (versions.c.version == contexts.c.version),
            )
            .where(contexts.c.tenant == tenant, contexts.c.id == context_id)
        )
        async with self._store.read() as connection:
            row = (await connection.execute(query)).mappings().first()
        if row is None or row["tenant"] != tenant:
            return None
        parts = decode_parts(row["parts"])
        return replace(
            _context(row),
            messages=_decode(row["messages"]),
            parts=parts,
            notes_id=row["notes_id"],
            base_version=row["base_version"],
        )

    async def page(
        self, tenant: str, *, limit: int, before: tuple[float, str] | None = None, source: Source | None = None
    ) -> list[Context]:
        """A tenant's contexts without their content, newest first, from `before` (its time and id) on back."""
        from sqlalchemy import select, tuple_

        from predawn.proxy.tables import contexts

        query = select(contexts).where(contexts.c.tenant == tenant, contexts.c.state != "forgotten")
        if source is not None:
            query = query.where(contexts.c.source == source)
        if before is not None:
            query = query.where(tuple_(contexts.c.created_at, contexts.c.id) < before)
        query = query.order_by(contexts.c.created_at.desc(), contexts.c.id.desc()).limit(limit)
        async with self._store.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [_context(row) for row in rows if row["tenant"] == tenant]

    async def recent(self, limit: int) -> list[Context]:
        """Maintenance: contexts of all tenants without their content; those under way first, then the latest."""
        from sqlalchemy import case, func, select

        from predawn.proxy.tables import contexts

        is_settled = case((contexts.c.state.in_(list(SLEEPABLE)), 1), else_=0)
        latest = func.coalesce(contexts.c.last_used_at, contexts.c.changed_at)
        query = select(contexts).where(contexts.c.state != "forgotten").order_by(is_settled, latest.desc()).limit(limit)
        async with self._store.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [_context(row) for row in rows]

    async def claim(
        self,
        tenant: str,
        context_id: str,
        version: int,
        state: ContextState,
        *,
        of: Collection[ContextState],
        job_ids: Collection[str] = (),
    ) -> bool:
        """Move the present version to another state if it is in one of `of`: of several who try at once, one gets True.

        False if there is a newer version, or nothing any more. Notes the jobs that will hold something of the context,
        so that they can be purged with it.
        """
        async with self._store.begin() as connection:
            update = _present(tenant, context_id, version, of).values(state=state)
            if not (await connection.execute(update)).rowcount:
                return False
            await self._add_jobs(connection, tenant, context_id, version, job_ids)
        return True

    async def report(self, tenant: str, context_id: str, version: int, progress: Progress) -> bool:
        """Keep how far sleep has come, and the state with it; False as in `claim`."""
        shown = msgspec.to_builtins(replace(progress, decision=None))
        async with self._store.begin() as connection:
            update = _present(tenant, context_id, version).values(state=progress.state, progress=shown)
            return bool((await connection.execute(update)).rowcount)

    async def _add_jobs(
        self, connection: AsyncConnection, tenant: str, context_id: str, version: int, job_ids: Collection[str]
    ) -> None:
        from predawn.proxy.tables import context_jobs as table

        for job_id in job_ids:
            insert = self._store.insert(table).values(
                tenant=tenant,
                context_id=context_id,
                job_id=job_id,
                version=version,
                orphan=False,
                created_at=self._clock.now(),
            )
            await connection.execute(insert.on_conflict_do_nothing())

    async def lineage(self, tenant: str, context_id: str, version: int) -> list[KnownVersion]:
        """A version and those that it continues, newest first."""
        async with self._store.read() as connection:
            rows = await _versions(connection, tenant, context_id, version)
        by_version = {row["version"]: _known(row) for row in rows if row["tenant"] == tenant}
        line: list[KnownVersion] = []
        known = by_version.get(version)
        while known is not None:
            line.append(known)
            known = by_version.get(known.base_version or 0)
        return line

    async def latest_change(self) -> tuple[int, int]:
        """The number of the latest change of any tenant, and up to which number gravestones are gone."""
        return await self._store.visit(_latest_change)  # in one trip, for it is asked every second

    async def changes(self, since: int, limit: int) -> list[Change]:
        """What changed after `since`, in order, of all tenants: for the index, which keeps tenants apart itself."""
        from sqlalchemy import select, tuple_

        from predawn.proxy.tables import context_versions as versions
        from predawn.proxy.tables import contexts

        columns = [contexts.c[name] for name in ("change", "tenant", "id", "source", "state", "version", "expires_at")]
        query = select(*columns).where(contexts.c.change > since).order_by(contexts.c.change).limit(limit)
        async with self._store.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
            if not rows:
                return []
            key = tuple_(versions.c.tenant, versions.c.context_id)
            ids = select(contexts.c.tenant, contexts.c.id).where(
                contexts.c.change > since, contexts.c.change <= rows[-1]["change"]
            )
            found = (await connection.execute(versions.select().where(key.in_(ids)))).mappings().all()
        by_context: dict[tuple[str, str], list[KnownVersion]] = {}
        for row in found:
            by_context.setdefault((row["tenant"], row["context_id"]), []).append(_known(row))
        return [
            Change(
                change=row["change"],
                tenant=row["tenant"],
                context_id=row["id"],
                source=row["source"],
                is_forgotten=row["state"] == "forgotten",
                version=row["version"],
                expires_at=row["expires_at"],
                versions=tuple(by_context.get((row["tenant"], row["id"]), ())),
            )
            for row in rows
        ]


def _present(tenant: str, context_id: str, version: int, of: Collection[ContextState] | None = None) -> Update:
    """An update of a context that is there, in this version, and in one of these states."""
    from predawn.proxy.tables import contexts

    update = contexts.update().where(
        contexts.c.tenant == tenant,
        contexts.c.id == context_id,
        contexts.c.version == version,
        contexts.c.state != "forgotten",
    )
    return update if of is None else update.where(contexts.c.state.in_(list(of)))


async def count_up(connection: AsyncConnection) -> int:
    """The next change's number. Held until the transaction ends, so that numbers become visible in their order."""
    from predawn.proxy.tables import context_changes as changes

    number = await connection.scalar(
        changes.update().where(changes.c.id == 1).values(value=changes.c.value + 1).returning(changes.c.value)
    )
    if number is None:
        raise LookupError("the table context_changes has lost its row")
    return int(number)


async def find(connection: AsyncConnection, tenant: str, context_id: str) -> Row | None:
    """A context's row, gravestones included."""
    from predawn.proxy.tables import contexts

    query = contexts.select().where(contexts.c.tenant == tenant, contexts.c.id == context_id)
    return (await connection.execute(query)).mappings().first()


async def _check_count(connection: AsyncConnection, tenant: str, source: Source, most: int) -> None:
    from sqlalchemy import func, select

    from predawn.proxy.tables import contexts

    query = select(func.count()).where(
        contexts.c.tenant == tenant, contexts.c.source == source, contexts.c.state != "forgotten"
    )
    if (await connection.scalar(query) or 0) >= most:
        raise ContextLimit(most, can_make_room=source == "discovered")


async def _is_same(connection: AsyncConnection, row: Row, draft: Draft) -> bool:
    """True if the present version has this content, live parts included."""
    if row["digest"] != draft.digest:
        return False
    parts = (await _versions(connection, row["tenant"], row["id"], row["version"]))[:1]
    return bool(parts) and decode_parts(parts[0]["parts"]) == draft.parts


async def _versions(connection: AsyncConnection, tenant: str, context_id: str, upto: int) -> Sequence[Row]:
    """The kept versions, newest first."""
    from predawn.proxy.tables import context_versions as versions

    query = (
        versions.select()
        .where(versions.c.tenant == tenant, versions.c.context_id == context_id, versions.c.version <= upto)
        .order_by(versions.c.version.desc())
    )
    return (await connection.execute(query)).mappings().all()


def _content(draft: Draft, version: int, now: float) -> dict[str, Any]:
    return {
        "version": version,
        "state": "new",
        "model": draft.model,
        "namespace": draft.namespace,
        "digest": draft.digest,
        "tokens": draft.tokens,
        "progress": msgspec.to_builtins(Progress()),
        "changed_at": now,
    }


async def _add_version(connection: AsyncConnection, tenant: str, draft: Draft, version: int, now: float) -> None:
    from predawn.proxy.tables import anticipated, notes
    from predawn.proxy.tables import context_versions as versions

    earlier = await _versions(connection, tenant, draft.id, version - 1)
    base = next(
        (
            row["version"]
            for row in earlier
            if (row["model"], row["namespace"]) == (draft.model, draft.namespace)
            and continues(decode_parts(row["parts"]), draft.messages, draft.parts)
        ),
        None,
    )
    of_context = (versions.c.tenant == tenant, versions.c.context_id == draft.id)
    await connection.execute(versions.update().where(*of_context).values(messages="[]"))
    await connection.execute(
        versions.insert().values(
            tenant=tenant,
            context_id=draft.id,
            version=version,
            model=draft.model,
            namespace=draft.namespace,
            links=b"".join(draft.links),
            parts=encode_parts(draft.parts),
            messages=draft.encoded,
            tokens=draft.tokens,
            base_version=base,
            notes_id=None,
            created_at=now,
        )
    )
    for table in (versions, notes, anticipated):
        await connection.execute(
            table.delete().where(
                table.c.tenant == tenant,
                table.c.context_id == draft.id,
                table.c.version <= version - KEPT_VERSIONS,
            )
        )


def _context(row: Row) -> Context:
    progress = row["progress"]
    return Context(
        id=row["id"],
        tenant=row["tenant"],
        model=row["model"],
        namespace=row["namespace"],
        source=row["source"],
        version=row["version"],
        state=row["state"],
        messages=(),
        prefix_digest=row["digest"],
        tokens=row["tokens"],
        options=decode_options(row["options"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        uses=row["uses"],
        last_used_at=row["last_used_at"],
        progress=msgspec.convert({**progress, "state": row["state"]}, Progress),
        changed_at=row["changed_at"],
    )


def _drafted(tenant: str, draft: Draft, version: int, now: float) -> Context:
    return Context(
        id=draft.id,
        tenant=tenant,
        model=draft.model,
        namespace=draft.namespace,
        source=draft.source,
        version=version,
        state="forgotten",
        messages=draft.messages,
        prefix_digest=draft.digest,
        tokens=draft.tokens,
        options=draft.options,
        created_at=now,
        expires_at=draft.expires_at,
        parts=draft.parts,
        changed_at=now,
    )


def _latest_change(visit: Visit) -> tuple[int, int]:
    from predawn.proxy.tables import context_changes as changes

    with visit.read() as connection:
        row = connection.execute(changes.select()).one()
    return int(row.value), int(row.gone)


def _known(row: Row) -> KnownVersion:
    links: bytes = row["links"]
    return KnownVersion(
        version=row["version"],
        model=row["model"],
        namespace=row["namespace"],
        links=tuple(links[at : at + DIGEST_BYTES] for at in range(0, len(links), DIGEST_BYTES)),
        tokens=row["tokens"],
        base_version=row["base_version"],
        notes_id=row["notes_id"],
        large=_large(row),
    )


def _large(row: Row) -> tuple[tuple[int, int], ...]:
    if row["tokens"] < LARGE_TOKENS:
        return ()
    parts = enumerate(decode_parts(row["parts"]))
    return tuple((place, part.tokens) for place, part in parts if part.tokens >= LARGE_TOKENS and not part.live)
