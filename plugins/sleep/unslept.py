"""Contexts that wait to be slept on, or were left in the middle by a crash: maintenance, across tenants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from predawn.plugins.sleep.contexts import ContextState

if TYPE_CHECKING:
    from predawn.proxy.clock import Clock
    from predawn.proxy.store import Store

UNSLEPT: tuple[ContextState, ...] = ("new", "queued", "sleeping", "checking")


@dataclass(frozen=True, slots=True)
class Unslept:
    """One such context in its present version."""

    tenant: str
    context_id: str
    version: int
    state: ContextState
    change: int
    """Its place in the order of changes."""


async def unslept(store: Store, clock: Clock, after: int, limit: int) -> list[Unslept]:
    """Those whose last change came after the one of number `after`, oldest first. Raises `StoreError`."""
    from sqlalchemy import or_, select

    from predawn.proxy.tables import contexts

    query = (
        select(contexts.c.tenant, contexts.c.id, contexts.c.version, contexts.c.state, contexts.c.change)
        .where(
            contexts.c.change > after,
            contexts.c.state.in_(UNSLEPT),
            or_(contexts.c.expires_at.is_(None), contexts.c.expires_at > clock.now()),
        )
        .order_by(contexts.c.change)
        .limit(limit)
    )
    async with store.read() as connection:
        rows = (await connection.execute(query)).all()
    return [Unslept(row.tenant, row.id, row.version, row.state, row.change) for row in rows]
