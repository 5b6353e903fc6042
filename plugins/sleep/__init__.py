"""`sleep`: thinks about contexts before the question comes, and puts what it found into the request (arXiv 2504.13171).

Five ideas carry it:

- a *context* is a beginning of conversations: registered by a client or discovered (`contexts.py`, `discovery.py`),
  kept in the store (`shelf.py`) and in memory, where a request finds the longest one it begins with (`index.py`);
- the *night* hears what happens, decides what is worth it, and runs durable jobs on it (`night.py`, `worth.py`,
  `stages.py`): consolidate, check, anticipate, warm;
- the *gate* lets them ask only while an upstream is free, and ends their calls when a person comes (`gate.py`);
- what was found out goes into requests as quoted data (`awake.py`, `injection.py`), never as orders;
- every use is booked with what it saved and what it had cost (`uses.py`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, ClassVar

from predawn.plugins import CallNext, ChunkFilter, Exchange, Plugin, PluginSettings, RegisterRoute, Reply, hookimpl
from predawn.plugins.sleep.endpoints import Endpoints
from predawn.plugins.sleep.serving import reply_of
from predawn.plugins.sleep.settings import SleepSettings

if TYPE_CHECKING:
    from predawn.plugins.sleep.running import Running
    from predawn.proxy.lifespan import App

__all__ = ["SleepPlugin", "SleepSettings"]


class SleepPlugin(Plugin[SleepSettings]):
    """Put it before `record`, so that the record holds what was put in."""

    settings_type: ClassVar[type[PluginSettings]] = SleepSettings
    # What was saved is told from the tokens of answers.
    wants_usage: ClassVar[bool] = True

    def __init__(self, settings: SleepSettings) -> None:
        super().__init__(settings)
        self.running: Running | None = None
        """Everything that lives as long as the server does."""
        self._endpoints = Endpoints(settings.limits, settings.namespace)

    @hookimpl
    def register_routes(self, register: RegisterRoute) -> None:
        self._endpoints.register(register)

    @hookimpl
    async def lifespan(self, app: App) -> AsyncIterator[None]:
        from predawn.plugins.sleep.running import Running

        async with Running.open(app, self.settings, self._endpoints) as running:
            self.running = running
            yield

    @hookimpl
    async def on_request(self, exchange: Exchange) -> None:
        if self.running is not None:
            await self.running.awake.on_request(exchange)

    @hookimpl
    async def around_completion(self, exchange: Exchange, call_next: CallNext) -> Reply:
        """Answer from what was worked out asleep where `serve: exact` allows it; ask without notes where they harm."""
        if self.running is None:
            return await call_next(exchange)
        awake = self.running.awake
        answer = awake.answer_for(exchange)
        if answer is not None:
            return reply_of(exchange, answer)
        reply = await call_next(exchange)
        return await call_next(exchange) if awake.undo(exchange, reply.status) else reply

    @hookimpl
    def chunk_filter(self, exchange: Exchange) -> ChunkFilter | None:
        return self.running.awake.watcher(exchange) if self.running is not None else None

    @hookimpl
    async def on_done(self, exchange: Exchange) -> None:
        if self.running is not None and exchange.call_purpose == "serve":
            await self.running.lessons.on_done(exchange)

    async def regret(self, tenant: str, exchange_id: str) -> int:
        """The answer of an exchange was wrong: note it with what went into it. Returns how many uses that spoils.

        For whoever gets to know, a verifier or the client's feedback. Raises `StoreError`.
        """
        return await self.running.regret(tenant, exchange_id) if self.running is not None else 0
