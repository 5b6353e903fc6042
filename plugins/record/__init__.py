"""`record`: the ledger, the calls and every decision of each exchange, in the store and at `GET /v1/exchanges/{id}`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from predawn.plugins import ChunkFilter, Exchange, Plugin, PluginSettings, hookimpl
from predawn.plugins.record.content import STATE, Content
from predawn.plugins.record.endpoints import Endpoints
from predawn.plugins.record.snapshot import Snapshot
from predawn.plugins.record.writer import Writer, keep_retention

if TYPE_CHECKING:
    from predawn.proxy.hookspecs import RegisterRoute
    from predawn.proxy.lifespan import App

__all__ = ["RecordPlugin", "RecordSettings"]


class RecordSettings(PluginSettings):
    record_content: bool = Field(
        default=False, description="Keep requests and replies, too; needed for `predawn replay`."
    )
    retention_days: float = Field(default=30, gt=0, description="Older exchanges are deleted, once an hour.")
    max_content_bytes: int = Field(
        default=256 << 10, ge=0, description="A longer request is not kept; of a longer reply only its beginning is."
    )
    flush_s: float = Field(default=0.5, gt=0, le=60, description="Longest time until an exchange is in the store.")


class RecordPlugin(Plugin[RecordSettings]):
    """Writes off the critical path; put it last, so that it keeps replies as clients get them."""

    settings_type: ClassVar[type[PluginSettings]] = RecordSettings
    wants_usage: ClassVar[bool] = True

    def __init__(self, settings: RecordSettings) -> None:
        super().__init__(settings)
        self.writer = Writer(settings.flush_s)
        self._endpoints = Endpoints(self.writer)

    @property
    def unused_hooks(self) -> frozenset[str]:
        return frozenset() if self.settings.record_content else frozenset({"chunk_filter"})

    @hookimpl
    def register_routes(self, register: RegisterRoute) -> None:
        register("GET", "/v1/exchanges", self._endpoints.many)
        register("GET", "/v1/exchanges/{id}", self._endpoints.one)

    @hookimpl
    async def lifespan(self, app: App) -> AsyncIterator[None]:
        self._endpoints.open_store = app.store
        retention_s = self.settings.retention_days * 86_400
        tasks = (
            app.tasks.spawn(self.writer.run(app.store, app.clock), "record-writer"),
            app.tasks.spawn(keep_retention(self.writer, app.store, app.clock, retention_s), "record-retention"),
        )
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.writer.close(app.store)

    @hookimpl
    def chunk_filter(self, exchange: Exchange) -> ChunkFilter | None:
        """Collect the reply's texts where content is recorded; otherwise stay out of the bytes' way."""
        if not self.settings.record_content or exchange.route in ("raw", "embeddings"):
            return None
        content = exchange.state[STATE] = Content(exchange.route, self.settings.max_content_bytes)
        return content

    @hookimpl
    async def on_done(self, exchange: Exchange) -> None:
        if not self.settings.record_content or exchange.route == "raw" or exchange.call_purpose != "serve":
            self.writer.add(Snapshot.of(exchange))
            return
        content = exchange.state.get(STATE) or Content(exchange.route, self.settings.max_content_bytes)
        content.close(exchange)
        self.writer.add(Snapshot.of(exchange, content))
