"""What was learnt, on its way to the store and back: outcomes, prices and days, in batches, behind the requests."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from predawn.plugins.budget.outcomes import Outcome, told
from predawn.plugins.budget.shelf import Shelf
from predawn.proxy.store_errors import StoreError

if TYPE_CHECKING:
    from predawn.plugins import App
    from predawn.plugins.budget.ceilings import Ceilings
    from predawn.plugins.budget.learning import Memory, State
    from predawn.plugins.budget.meters import BudgetMeters
    from predawn.plugins.budget.prices import Prices
    from predawn.plugins.budget.settings import BudgetSettings

log = logging.getLogger("predawn.budget")
MOST_WAITING: Final = 5_000
"""Outcomes kept while the store does not take them; beyond it the oldest are not written."""
BATCH: Final = 1_000
EAGER: Final = 50
"""States that are read at start; others are when their tenant is met."""
AT_ONCE: Final = 32
"""Outcomes learnt before requests get a turn: about 1 ms."""
CLEAR_S: Final = 3600.0
CLOSE_S: Final = 10.0


class Books:
    """Made when the server starts. `run` is its one task."""

    def __init__(  # noqa: PLR0917 - what it reads and writes
        self,
        settings: BudgetSettings,
        app: App,
        memory: Memory,
        prices: Prices,
        ceilings: Ceilings,
        meters: BudgetMeters,
    ) -> None:
        self._settings = settings
        self._app = app
        self._memory = memory
        self._prices = prices
        self._ceilings = ceilings
        self._meters = meters
        self._waiting: deque[Outcome] = deque(maxlen=MOST_WAITING)
        self._wanted: dict[tuple[str, str], None] = {}
        self._grown: dict[tuple[str, str], int] = {}
        self._writing = asyncio.Lock()
        self._cleared_at = -CLEAR_S

    async def open(self) -> None:
        """Read what is known, so that a restart forgets nothing; a store that cannot be read makes a cold start."""
        try:
            shelf = await self._shelf()
            self._prices.load(await shelf.prices())
            if self._ceilings.limits_days:
                day = self._ceilings.day
                self._ceilings.load(day, await shelf.spent(day))
            if self._settings.learning.enabled:
                for tenant, model in reversed(await shelf.busiest(min(EAGER, self._settings.learning.tenants))):
                    await self._load(shelf, tenant, model)
        except StoreError as exc:
            log.warning("nothing is known from before: %s", exc)

    def wants(self, tenant: str, model: str, state: State) -> None:
        """Have a state read from the store that is not; until then its requests are a cold start."""
        if not state.is_loaded and self._settings.learning.enabled:
            self._wanted[tenant, model] = None

    def add(self, outcome: Outcome) -> None:
        """Write an outcome soon."""
        self._waiting.append(outcome)

    async def tell(self, tenant: str, exchange_id: str, score: float) -> bool:
        """A client's feedback; false if the tenant has no such exchange. Raises `StoreError`."""
        judged = told(score)
        waiting = (one for one in reversed(self._waiting) if one.tenant == tenant and one.exchange_id == exchange_id)
        known = next(waiting, None)
        if known is None:
            await self.flush()
            known = await (await self._shelf()).outcome(tenant, exchange_id)
        if known is None or known.tenant != tenant:
            return False
        state = self._memory.of(tenant, known.model)
        better = state.rejudge(exchange_id, judged)
        if better is None:
            better = judged.of(known)
            if self._settings.learning.enabled:
                state.learn(better)
        self._meters.learnt("feedback")
        self._waiting.append(better)
        return True

    async def run(self) -> None:
        """Write and read, every `flush_s`, until cancelled. While the store fails, it is asked less and less often."""
        pause = self._settings.learning.flush_s
        while True:
            await self._app.clock.sleep(pause)
            try:
                await self.flush()
                await self._read()
                await self._clear()
            except StoreError as exc:
                log.warning("what was learnt waits in memory: %s", exc)
                pause = min(pause * 2, 60.0)
            else:
                pause = self._settings.learning.flush_s
            self._look()

    async def close(self) -> None:
        """Write the rest."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.flush()
        except (StoreError, TimeoutError) as exc:
            log.warning("what was learnt at the end is lost: %s", exc or "the store is too slow")

    async def flush(self) -> None:
        """Write everything that waits. Raises `StoreError`, and it waits on."""
        async with self._writing:
            while True:
                batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
                days = self._ceilings.take_unwritten()
                prices = self._prices.take_changed(self._app.clock.now())
                if not (batch or days or prices):
                    return
                try:
                    await (await self._shelf()).write(batch, prices, days)
                except (StoreError, asyncio.CancelledError):
                    self._ceilings.give_back(days)
                    if room := MOST_WAITING - len(self._waiting):
                        self._waiting.extendleft(reversed(batch[-room:]))
                    raise
                for outcome in batch:
                    place = (outcome.tenant, outcome.model)
                    self._grown[place] = self._grown.get(place, 0) + 1

    async def _read(self) -> None:
        shelf = await self._shelf()
        wanted, self._wanted = self._wanted, {}
        for tenant, model in wanted:
            await self._load(shelf, tenant, model)
        if self._ceilings.limits_days:
            async with self._writing:
                day = self._ceilings.day
                self._ceilings.load(day, await shelf.spent(day))

    async def _load(self, shelf: Shelf, tenant: str, model: str) -> None:
        state = self._memory.begin(model)
        for count, outcome in enumerate(await shelf.outcomes(tenant, model, self._settings.learning.outcomes), 1):
            state.learn(outcome)
            if count % AT_ONCE == 0:
                await self._app.clock.sleep(0)
        self._memory.install(tenant, model, state)

    async def _clear(self) -> None:
        shelf, most = await self._shelf(), self._settings.learning.outcomes
        now = self._app.clock.monotonic()
        is_due = now - self._cleared_at >= CLEAR_S
        for place, grown in list(self._grown.items()):
            if grown >= most or is_due:
                del self._grown[place]
                await shelf.trim(*place, most)
        if is_due:
            self._cleared_at = now
            older_than = self._app.clock.now() - self._settings.learning.retention_days * 86_400.0
            await shelf.clear(older_than, self._ceilings.day - timedelta(days=7))

    def _look(self) -> None:
        """Bring the gauges up to date."""
        flat: dict[str, int] = {}
        for (_, model), state in self._memory.states.items():
            flat[model] = flat.get(model, 0) + len(state.curves.flat_kinds)
        for model, kinds in flat.items():
            self._meters.flat(model, kinds)

    async def _shelf(self) -> Shelf:
        return Shelf(await self._app.store())
