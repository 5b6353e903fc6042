"""Everything of sleep that lives as long as the server does, put together and kept going."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from predawn.plugins.sleep.activity import Activity
from predawn.plugins.sleep.awake import Awake
from predawn.plugins.sleep.discovery import Discovery
from predawn.plugins.sleep.endpoints import Endpoints
from predawn.plugins.sleep.forgetting import clear_up
from predawn.plugins.sleep.index import Index
from predawn.plugins.sleep.lessons import Lessons
from predawn.plugins.sleep.load import watch_load
from predawn.plugins.sleep.meters import SleepMeters
from predawn.plugins.sleep.night import Night
from predawn.plugins.sleep.places import Places
from predawn.plugins.sleep.planning import Surroundings
from predawn.plugins.sleep.recall import Recall
from predawn.plugins.sleep.sending import Sending
from predawn.plugins.sleep.shelf import Shelf
from predawn.plugins.sleep.showing import Showing
from predawn.plugins.sleep.unslept import unslept
from predawn.plugins.sleep.uses import Books
from predawn.proxy.problems import unknown
from predawn.proxy.spend import Usage, UsageBook
from predawn.proxy.store_errors import StoreError

if TYPE_CHECKING:
    from predawn.plugins import App, Exchange
    from predawn.plugins.sleep.contexts import Anticipated, Context, Notes
    from predawn.plugins.sleep.prompts import Style
    from predawn.plugins.sleep.settings import SleepSettings
    from predawn.proxy.jobs.protocol import JobEngine
    from predawn.proxy.store import Store

log = logging.getLogger("predawn.sleep")
UPKEEP_EVERY_S = 60.0
LOOK_EVERY_S = 1.0
START_S = 5.0
KEY_ID = "sleep"
"""Under this name what sleep cost stands among the tenant's keys in `predawn keys usage`."""


class FreshShelf(Shelf):
    """A shelf whose own process's index learns at once of what its jobs found out; others within a second."""

    index: Index | None = None

    async def judge(self, tenant: str, notes: Notes) -> bool:
        done = await super().judge(tenant, notes)
        await self._refresh()
        return done

    async def add_anticipated(self, tenant: str, found: Sequence[Anticipated]) -> int:
        kept = await super().add_anticipated(tenant, found)
        await self._refresh()
        return kept

    async def _refresh(self) -> None:
        if self.index is not None:
            await self.index.refresh()


class Running:
    """Made by `open`."""

    def __init__(self, app: App, settings: SleepSettings, store: Store, jobs: JobEngine) -> None:
        self._app = app
        self._settings = settings
        self._store = store
        clock = app.clock
        self.places = Places(app.settings)
        self.meters = SleepMeters(app.metrics, self.places.all)
        self.shelf = FreshShelf(store, clock)
        self.recall = Recall(self.shelf)
        self.books = Books(self.shelf, clock)
        self.index = self.shelf.index = Index(
            self.shelf, clock, on_dropped=self._dropped, on_forgotten=self.books.forget
        )
        self.usage = UsageBook(clock)
        around = Surroundings(
            upstream_of=self.places.of,
            model_of=self.model_of,
            style_of=self.style_of,
            price_of=self.places.price_of,
            unslept=partial(unslept, store, clock),
            on_end=self.meters.ended,
            on_closed=self.meters.closed,
        )
        self.sending = Sending(app, self.places, self._sent)
        self.night = Night(settings.night, around, self.sending, self.shelf, jobs, clock, app.tasks)
        self.activity = Activity(store, self.night.gate)
        discovery = Discovery(settings.min_tokens, settings.min_uses, max_bytes=settings.limits.max_discovered_bytes)
        self.awake = Awake(
            settings, self.places, self.index, self.recall, self.night, self.activity, self.meters, clock
        )
        self.lessons = Lessons(settings, self.places, self.shelf, discovery, self.night, self.books, self.meters, clock)

    @classmethod
    @asynccontextmanager
    async def open(cls, app: App, settings: SleepSettings, endpoints: Endpoints) -> AsyncIterator[Running]:
        """Everything in place, and the tasks that keep it so. Raises `StoreError`."""
        store = await app.store()
        running = cls(app, settings, store, await app.jobs())
        running._warn()
        first = app.tasks.spawn(running.index.refresh(), "sleep.contexts")
        await asyncio.wait([first], timeout=START_S)  # many contexts come in while requests go without them
        running.night.register()
        running.serve(endpoints)
        tasks = [app.tasks.spawn(work, f"sleep.{name}") for name, work in running.works().items()]
        shown = Showing(running.shelf, running.night).offer(app)
        try:
            yield running
        finally:
            for withdraw in shown:
                withdraw()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await running.write()

    def _warn(self) -> None:
        """Say what in the settings names nothing."""
        settings, upstreams = self._settings, [one.name for one in self._app.settings.upstreams]
        for alias in (settings.model, settings.check_model):
            if alias and not self.places.has(alias):
                log.warning("there is no sleep: %s", unknown("model", alias, self.places.names))
        for name in settings.load_urls:
            if name not in upstreams:
                log.warning("load_urls: %s", unknown("upstream", name, upstreams))

    def serve(self, endpoints: Endpoints) -> None:
        """Let the endpoints work."""
        endpoints.open_shelf = self._shelf
        endpoints.index = self.index
        endpoints.sleeper = self.night
        endpoints.regretted = self.regret
        endpoints.settled = self.books.settle
        endpoints.clock = self._app.clock
        endpoints.models = None if self.places.has("*") else frozenset(self.places.names)

    async def _shelf(self) -> Shelf:
        return self.shelf

    def works(self) -> dict[str, Coroutine[Any, Any, None]]:
        """What goes on beside requests."""
        clock = self._app.clock
        return {
            "index": self.index.keep_fresh(),
            "night": self.night.run(),
            "uses": self.books.run(),
            "upkeep": self._upkeep(),
            "meters": self._measure(),
            "activity": self.activity.run(clock),
            "load": watch_load(self._settings.load_urls, self.night, self.places, clock),
        }

    async def _upkeep(self) -> None:
        """Forget what expired, finish what a crash left, and write down what sleep cost."""
        while True:
            await self._app.clock.sleep(UPKEEP_EVERY_S)
            try:
                await clear_up(self.shelf, self.night, keep_uses_s=self._settings.keep_uses_days * 86_400)
                await self.usage.sync(self._store, reads_spend=False)
            except StoreError as exc:
                log.warning("the upkeep of contexts waits for the store: %s", exc)

    async def _measure(self) -> None:
        while True:
            self.meters.look(self.index, self.night.status())
            await self._app.clock.sleep(LOOK_EVERY_S)

    async def write(self) -> None:
        """Write down what waits in memory."""
        try:
            await self.books.flush()
            await self.usage.sync(self._store, reads_spend=False)
        except StoreError as exc:
            log.error("uses of contexts are lost: %s", exc)

    async def regret(self, tenant: str, exchange_id: str) -> int:
        """See `SleepPlugin.regret`."""
        count = await self.books.regret(tenant, exchange_id)
        self.meters.regretted(count)
        return count

    def model_of(self, context: Context) -> str | None:
        """The alias to think with."""
        for name in (self._settings.model, context.model, *self.places.names[:1]):
            if name:
                return name if self.places.has(name) else None
        return None

    def style_of(self, model: str) -> Style:
        """How notes are written by, and for, a model."""
        return self.places.style_of(model) if self._settings.style == "auto" else self._settings.style

    def _dropped(self, tenant: str, context_id: str) -> None:
        self.recall.drop(tenant, context_id)

    def _sent(self, exchange: Exchange) -> None:
        """A call asleep is over: book it to its tenant, and let it be recorded like any other."""
        ledger = exchange.ledger
        if not ledger.calls:
            return
        self.meters.sent(exchange, self.places.label_of(exchange.model), ledger.calls[-1].upstream)
        used = Usage.of(ledger.prompt, ledger.cached_prompt, ledger.output, ledger.spend_usd)
        self.usage.book(exchange.tenant, KEY_ID, used)
        self._app.done(exchange)
