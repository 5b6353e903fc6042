"""A tenant's bounds: what was discovered makes room, what was registered never does."""

from dataclasses import replace

import pytest

from predawn.plugins.sleep.drafts import Draft
from predawn.plugins.sleep.keeping import keep
from predawn.plugins.sleep.shelf import ContextLimit, Shelf
from predawn.plugins.sleep.wishes import Limits


class Clerk:
    """Knows the job store."""

    def __init__(self):
        self.purged = []

    async def purge(self, tenant, context_id, job_ids):
        self.purged.append((tenant, context_id))


class Keeper:
    def __init__(self, store, clock, **limits):
        self.shelf, self.clock, self.clerk = Shelf(store, clock), clock, Clerk()
        self.limits = Limits(**limits)

    async def keep(self, ident, text="text", *, source="discovered", tenant="t"):
        expires_at = self.clock.now() + 1000 if source == "discovered" else None
        draft = Draft.of(tenant, [{"role": "user", "content": text}], id=ident, source=source, expires_at=expires_at)
        await self.clock.advance(1)
        return await keep(self.shelf, self.clerk, tenant, draft, self.limits)

    async def ids(self, tenant="t"):
        return sorted(context.id for context in await self.shelf.page(tenant, limit=100))


async def test_the_discovered_context_unused_for_longest_makes_room(store, clock):
    keeper = Keeper(store, clock, max_contexts=3)
    for ident in ("a", "b", "c"):
        await keeper.keep(ident)
    await keeper.shelf.prolong("t", "a", clock.now() + 2000)
    _, came, forgotten = await keeper.keep("d")

    assert (came, forgotten) == ("created", 1)
    assert await keeper.ids() == ["a", "c", "d"]
    assert keeper.clerk.purged == [("t", "b")]


async def test_a_registered_context_never_makes_room(store, clock):
    keeper = Keeper(store, clock, max_contexts=2)
    for ident in ("a", "b"):
        await keeper.keep(ident, source="registered")
    with pytest.raises(ContextLimit, match="2 contexts"):
        await keeper.keep("c", source="registered")
    await keeper.keep("d")

    assert await keeper.ids() == ["a", "b", "d"]
    assert keeper.clerk.purged == []


async def test_bytes_are_bounded_and_discovered_contexts_make_room_for_registered_ones(store, clock):
    keeper = Keeper(store, clock, max_tenant_bytes=1000)
    for ident in ("a", "b", "c"):
        await keeper.keep(ident, "\u00e4" * 100)
    await keeper.keep("mine", "x" * 700, source="registered")
    with pytest.raises(ContextLimit, match="1000 bytes") as refused:
        await keeper.keep("more", "x" * 300, source="registered")
    with pytest.raises(ContextLimit):
        await keeper.keep("found", "x" * 300)
    await keeper.keep("a", "x" * 900, tenant="other")

    assert refused.value.unit == "bytes"
    assert await keeper.ids() == ["c", "mine"]
    assert keeper.clerk.purged == [("t", "a"), ("t", "b")]
    assert await keeper.ids("other") == ["a"]


async def test_what_could_never_fit_forgets_nothing(store, clock):
    keeper = Keeper(store, clock, max_tenant_bytes=500)
    await keeper.keep("a")
    with pytest.raises(ContextLimit):
        await keeper.keep("b", "x" * 600)

    assert await keeper.ids() == ["a"]


async def test_nothing_is_forgotten_in_vain(store, clock):
    """What does not fit beside the registered contexts would not fit without the discovered ones either."""
    keeper = Keeper(store, clock, max_tenant_bytes=1000)
    await keeper.keep("found", "x" * 100)
    await keeper.keep("mine", "x" * 700, source="registered")
    with pytest.raises(ContextLimit):
        await keeper.keep("more", "x" * 300, source="registered")
    with pytest.raises(ContextLimit):
        await keeper.keep("other", "x" * 300)

    assert await keeper.ids() == ["found", "mine"]
    assert keeper.clerk.purged == []


async def test_a_new_version_counts_in_place_of_the_old_one(store, clock):
    keeper = Keeper(store, clock, max_tenant_bytes=1000)
    await keeper.keep("a", "x" * 900, source="registered")
    _, came, _ = await keeper.keep("a", "y" * 900, source="registered")
    _, same, _ = await replace_limits(keeper, 10).keep("a", "y" * 900, source="registered")

    assert (came, same) == ("changed", "same")


def replace_limits(keeper, most):
    keeper.limits = replace(keeper.limits, max_tenant_bytes=most)
    return keeper
