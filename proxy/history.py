"""Recorded exchanges in the store: written in batches, found by tenant, thrown away when they are old."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

if TYPE_CHECKING:
    from predawn.proxy.store import Store

Row: TypeAlias = Mapping[str, Any]
"""The columns of the table `exchanges` by name."""
PURGE_BATCH = 500
MOST_PER_STATEMENT = 512
_LEDGER = ("slept", "prompt", "cached_prompt", "output", "reasoning", "discarded", "verify", "estimated", "spend_usd")
_SUMMARY = (
    "id",
    "arrived_at",
    "route",
    "model",
    "upstream",
    "upstream_model",
    "stream",
    "status",
    "outcome",
    "total_s",
)


async def write(store: Store, rows: Sequence[Sequence[Any]]) -> None:
    """Write finished exchanges in one transaction; each is the values of the table's columns, in their order.

    An exchange that is there already stays as it is, so that a batch whose fate is unknown can be written again. Raises
    `StoreError`; `sqlalchemy.exc.DataError` and `IntegrityError` for rows that the database refuses.
    """
    from predawn.proxy.tables import exchanges

    async with store.begin() as connection:
        if store.dialect != "sqlite":
            await connection.execute(store.insert(exchanges).on_conflict_do_nothing(), [_named(row) for row in rows])
            return
        start = 0
        while left := len(rows) - start:
            count = min(MOST_PER_STATEMENT, 1 << (left.bit_length() - 1))  # few lengths, so that few are prepared
            values = tuple(chain.from_iterable(rows[start : start + count]))
            await connection.exec_driver_sql(_insert(count), values)
            start += count


def _named(row: Sequence[Any]) -> dict[str, Any]:
    """The values by their columns, for a driver that has types of its own."""
    from predawn.proxy.tables import exchanges

    named = dict(zip((column.name for column in exchanges.c), row, strict=True))
    return {**named, "record": msgspec.Raw(named["record"].encode())}


@functools.cache
def _insert(count: int) -> str:
    """One statement for many rows: SQLite's driver gives up the interpreter's lock once per statement, not per row.

    Against `executemany` this takes 2/3 off what recording costs a busy server.
    """
    from predawn.proxy.tables import exchanges

    names = [column.name for column in exchanges.c]
    row = f"({','.join('?' * len(names))})"
    return f"INSERT INTO exchanges ({','.join(names)}) VALUES {','.join([row] * count)} ON CONFLICT DO NOTHING"  # noqa: S608 - no value stands in it


async def find(store: Store, tenant: str, ident: str) -> Row | None:
    """One exchange of a tenant. Raises `StoreError`."""
    from sqlalchemy import select

    from predawn.proxy.tables import exchanges

    query = select(exchanges).where(exchanges.c.tenant == tenant, exchanges.c.id == ident)
    async with store.read() as connection:
        row = (await connection.execute(query)).mappings().first()
    return row if row is not None and row["tenant"] == tenant else None  # type: ignore[return-value]


async def page(store: Store, tenant: str, *, limit: int, before: tuple[float, str] | None = None) -> list[Row]:
    """A tenant's exchanges, newest first, from `before` (its time and id) on back. Raises `StoreError`."""
    from sqlalchemy import select, tuple_

    from predawn.proxy.tables import exchanges

    columns = [column for column in exchanges.c if column.name not in ("record", "content")]
    query = select(*columns).where(exchanges.c.tenant == tenant)
    if before is not None:
        query = query.where(tuple_(exchanges.c.arrived_at, exchanges.c.id) < before)
    query = query.order_by(exchanges.c.arrived_at.desc(), exchanges.c.id.desc()).limit(limit)
    async with store.read() as connection:
        rows = (await connection.execute(query)).mappings().all()
    return [row for row in rows if row["tenant"] == tenant]  # type: ignore[misc]


async def purge(store: Store, older_than: float, limit: int = PURGE_BATCH) -> int:
    """Delete at most `limit` exchanges, of all tenants, that arrived earlier; returns how many. Raises `StoreError`."""
    from sqlalchemy import delete, select, tuple_

    from predawn.proxy.tables import exchanges

    key = (exchanges.c.tenant, exchanges.c.id)
    old = select(*key).where(exchanges.c.arrived_at < older_than).limit(limit)
    async with store.begin() as connection:
        done = await connection.execute(delete(exchanges).where(tuple_(*key).in_(old)))
    return int(done.rowcount)


def summary(row: Row) -> dict[str, Any]:
    """One line of a list, as the API shows it."""
    return {"object": "exchange", **{name: row[name] for name in _SUMMARY}, "ledger": _ledger(row)}


def detail(row: Row) -> dict[str, Any]:
    """All that is known of an exchange, as the API shows it."""
    stored: Any = row["record"]
    # what is not in the store yet is still encoded
    record: Mapping[str, Any] = msgspec.json.decode(stored) if isinstance(stored, msgspec.Raw) else stored
    shown = {**summary(row), "key_id": row["key_id"], **record, "ledger": {**_ledger(row), **record.get("ledger", {})}}
    if row["content"] is not None:
        shown["content"] = content(row)
    return shown


def content(row: Row) -> dict[str, Any] | None:
    """The recorded request and reply, or `None` if recording them was off."""
    return msgspec.json.decode(row["content"], type=dict[str, Any]) if row["content"] is not None else None


def _ledger(row: Row) -> dict[str, Any]:
    return {name: row[name] for name in _LEDGER}
