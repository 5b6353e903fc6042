"""Forgets contexts with all that came of them, in the job store, too; and what a crash left half forgotten."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from predawn.proxy.store_errors import StoreError

if TYPE_CHECKING:
    from predawn.plugins.sleep.shelf import Shelf

log = logging.getLogger("predawn.sleep")


class Purger(Protocol):
    """Who knows the job store."""

    async def purge(self, tenant: str, context_id: str, job_ids: Sequence[str]) -> None:
        """A context was forgotten: cancel these jobs and purge the job store of them. Raises `StoreError`."""
        ...


async def forget(shelf: Shelf, purger: Purger, tenant: str, context_id: str) -> bool:
    """Forget a context and purge the job store of it; False if there is none. Raises `StoreError`.

    If the job store cannot be reached, the context is gone all the same, and `clear_up` purges its jobs later.
    """
    job_ids = await shelf.forget(tenant, context_id)
    if job_ids is None:
        return False
    await _purge(shelf, purger, tenant, context_id, job_ids)
    return True


async def clear_up(shelf: Shelf, purger: Purger, *, keep_uses_s: float = 90 * 86_400.0) -> int:
    """Maintenance, every minute or so on any machine: forget what has expired, finish what a crash left half done.

    Returns how many contexts expired. Raises `StoreError`.
    """
    expired = await shelf.expired()
    for tenant, context_id in expired:
        await forget(shelf, purger, tenant, context_id)
    for grave in await shelf.unpurged():
        await _purge(shelf, purger, grave.tenant, grave.context_id, grave.job_ids)
    await shelf.clear(keep_uses_s=keep_uses_s)
    return len(expired)


async def _purge(shelf: Shelf, purger: Purger, tenant: str, context_id: str, job_ids: Sequence[str]) -> None:
    try:
        await purger.purge(tenant, context_id, job_ids)
    except StoreError as exc:
        log.warning("jobs of a forgotten context are still to be purged: %s", exc)
    else:
        await shelf.purged(tenant, context_id, job_ids)
