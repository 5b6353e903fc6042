"""A plugin that has the endpoints of contexts and sleeps by script: for tests of what clients see."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

from predawn.plugins import App, Plugin, PluginSettings, hookimpl
from predawn.plugins.sleep.contexts import Progress
from predawn.plugins.sleep.endpoints import Endpoints
from predawn.plugins.sleep.index import Index
from predawn.plugins.sleep.shelf import Shelf
from predawn.plugins.sleep.wishes import Limits
from predawn.proxy.store_errors import StoreError


class DeskClerk(Plugin[PluginSettings]):
    """Keeps what clients set in motion; `asked` moves a context to the first of `will_be`."""

    def __init__(self, *, limits: Limits | None = None, models: frozenset[str] | None = None) -> None:
        super().__init__(PluginSettings())
        self.endpoints = Endpoints(limits or Limits())
        self.endpoints.models = models
        self.endpoints.sleeper = self
        self.seen: list[tuple[str, ...]] = []
        self.will_be: list[Progress] = []
        self.waits: dict[tuple[str, str], dict[str, str]] = {}
        self.why_not = ""
        self.fails_to_purge = False
        self.fails_to_open = False
        self.shelf: Shelf

    @hookimpl
    def register_routes(self, register) -> None:
        self.endpoints.register(register)

    @hookimpl
    async def lifespan(self, app: App) -> AsyncIterator[None]:
        self.shelf = Shelf(await app.store(), app.clock)

        async def open_shelf() -> Shelf:
            if self.fails_to_open:
                raise StoreError("the disk is full")
            return self.shelf

        self.endpoints.open_shelf = open_shelf
        self.endpoints.clock = app.clock
        self.endpoints.index = Index(self.shelf, app.clock)
        yield

    async def came(self, context, came) -> None:
        self.seen.append(("came", context.tenant, context.id, came))

    async def asked(self, context, options) -> None:
        self.seen.append(("asked", context.id, str(options.max_passes)))
        await self.step(context.tenant, context.id)
        return self.why_not

    def waits_elsewhere(self, context, decision):
        return None

    def waits_for(self, tenant, context_id):
        return self.waits.get((tenant, context_id))

    async def purge(self, tenant, context_id, job_ids) -> None:
        if self.fails_to_purge:
            raise StoreError("the job store is gone")
        self.seen.append(("purge", tenant, context_id, *job_ids))

    async def step(self, tenant: str, context_id: str) -> None:
        """Move a context to the next state of the script."""
        if self.will_be:
            context = await self.shelf.get(tenant, context_id)
            await self.shelf.report(tenant, context_id, context.version, replace(self.will_be.pop(0)))
