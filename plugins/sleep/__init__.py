"""`sleep`: thinks about contexts before the question comes, and puts what it found into the request (arXiv 2504.13171).

Five ideas carry it, and each file belongs to one of them. Where to begin is named first.

- A *context* is a beginning of conversations, registered by a client or discovered. `contexts.py`: the types of all
  that follows. It comes by `endpoints.py` (read by `wishes.py`) or `discovery.py`, as `drafts.py`, cut by `prefix.py`;
  is kept within bounds by `keeping.py` and deleted by `forgetting.py`. The store is `shelf.py`, in three parts:
  `shelf_contexts.py`, `shelf_notes.py`, `shelf_books.py`. In memory `index.py` finds the longest one that a request
  begins with (`matches.py`: what it finds; `memory.py`: its bounds), and `recall.py` the questions that were expected.
- The *night* decides what is slept on, and why it waits. `night.py` hears of what happens (`triggers.py`), finds what
  nobody told it (`unslept.py`), weighs it (`planning.py`, `worth.py`, `predictability.py`) and submits an order
  (`orders.py`). `stages.py` runs that as durable jobs: `thinking.py`, then `checking.py`, `anticipation.py`,
  `warming.py`, each given a `work.py` and a `desk.py`, the part of the shelf that jobs see; what must wait for long is
  put off (`deferral.py`). What is said to models and read from them: `prompts.py`, `notes.py`, `arithmetic.py`, and
  `terse.py` for the bundled one.
- The *gate* (`gate.py`) is open only while an upstream is free, here (`places.py` tells which one that is), elsewhere
  (`activity.py`) and by its own account (`saturation.py`, `load.py`). `asking.py` passes it with every call, within the
  day's budget (`budget_day.py`); `sending.py` makes the call, `errors.py` says what may be kept of a refusal.
- *Awake*, notes go into requests as quoted data, never as orders. `awake.py` has the order of events: `control.py`
  (what the client wishes), `conversation.py` (one shape for all APIs), `injection.py`, `effort.py` (less thought with
  notes), `serving.py` (an answer without a call), `undoing.py` (an upstream refused the notes), `toolgaps.py`.
- *Lessons*: every use is booked with what it saved and what it had cost (`lessons.py`, `uses.py`), and metered
  (`meters.py`); `showing.py` is what the live page shows.

`running.py` puts it all together, by `settings.py`; what asks the store again and again survives its `outage.py`. What
is below only says when each part is asked.
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
        awake.saw(exchange, reply)
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
