"""Puts contexts onto the shelf within a tenant's bounds: what was discovered makes room, what was registered never."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predawn.plugins.sleep.forgetting import forget
from predawn.plugins.sleep.shelf import Came, ContextLimit, Shelf

if TYPE_CHECKING:
    from predawn.plugins.sleep.contexts import Context
    from predawn.plugins.sleep.drafts import Draft
    from predawn.plugins.sleep.forgetting import Purger
    from predawn.plugins.sleep.wishes import Limits

MOST_FORGOTTEN = 100
"""For one new context; what still does not fit then comes again."""


async def keep(shelf: Shelf, purger: Purger, tenant: str, draft: Draft, limits: Limits) -> tuple[Context, Came, int]:
    """As `Shelf.put`, after as many discovered contexts were forgotten as needed, those unused for longest first.

    Returns how many that were, too. Raises `ContextLimit` where that does not help, and `StoreError`.
    """
    forgotten = 0
    while True:
        try:
            context, came = await shelf.put(tenant, draft, most=limits.max_contexts, most_bytes=limits.max_tenant_bytes)
        except ContextLimit as exc:
            may_forget = exc.can_make_room and forgotten < MOST_FORGOTTEN
            oldest = await shelf.longest_unused(tenant) if may_forget else None
            if oldest is None:
                raise
            forgotten += await forget(shelf, purger, tenant, oldest)
        else:
            return context, came, forgotten
