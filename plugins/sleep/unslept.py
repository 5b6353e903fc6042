"""Contexts that wait to be slept on, or were left in the middle by a crash: maintenance, across tenants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from predawn.plugins.sleep.contexts import ContextState

if TYPE_CHECKING:
    from predawn.proxy.clock import Clock
    from predawn.proxy.store import Store

UNSLEPT: tuple[ContextState, ...] = ("new", "queued", "sleeping", "checking")
GIVEN_UP: tuple[ContextState, ...] = ("skipped", "failed")
LEFT = ("anticipate", "warm")
"""Stages that a context which is asleep may have left to do."""


@dataclass(frozen=True, slots=True)
class Unslept:
    """One such context in its present version."""

    tenant: str
    context_id: str
    version: int
    state: ContextState
    change: int
    """Its place in the order of changes."""


async def unslept(store: Store, clock: Clock, after: int, limit: int, with_given_up: bool = False) -> list[Unslept]:
    """Those whose last change came after the one of number `after`, oldest first. Raises `StoreError`.

    `with_given_up` brings those that were not worth it, or failed, as well.
    """
    from sqlalchemy import and_, or_, select

    from predawn.proxy.tables import contexts

    query = (
        select(contexts.c.tenant, contexts.c.id, contexts.c.version, contexts.c.state, contexts.c.change)
        .where(
            contexts.c.change > after,
            or_(
                contexts.c.state.in_((*UNSLEPT, *GIVEN_UP) if with_given_up else UNSLEPT),
                and_(contexts.c.state == "asleep", contexts.c.progress["stage"].as_string().in_(LEFT)),
            ),
            or_(contexts.c.expires_at.is_(None), contexts.c.expires_at > clock.now()),
        )
        .order_by(contexts.c.change)
        .limit(limit)
    )
    async with store.read() as connection:
        rows = (await connection.execute(query)).all()
    return [Unslept(row.tenant, row.id, row.version, row.state, row.change) for row in rows]
