"""`sampling`: draws several answers where one is not safe enough, and gives out the best.

Five ideas carry it:

- a *plan* says how a request is to be answered: by its client, by its budget, or by the settings (`control.py`);
- a *strategy* decides how many samples are drawn, which are given up, and which is the answer. It knows neither clock
  nor upstream (`strategies/`), so that `predawn simulate` runs the same code;
- a *drawing* does what the strategy asks for: calls, cancels, compares (`drawing.py`, `judging.py`, `revising.py`);
- an *extractor* finds what a text answers, so that equal answers are equal (`answers/`);
- the winner goes out as it came, with everything that was spent in `usage.predawn` (`streaming.py`, `replying.py`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, ClassVar

from predawn.plugins import CallNext, Exchange, Plugin, PluginSettings, Reply, hookimpl
from predawn.plugins.sampling.control import Pass, plan_of
from predawn.plugins.sampling.result import SamplingResult, result_of
from predawn.plugins.sampling.settings import SamplingSettings

if TYPE_CHECKING:
    from predawn.plugins import App
    from predawn.plugins.sampling.replying import Replying

__all__ = ["SamplingPlugin", "SamplingResult", "SamplingSettings", "result_of"]


class SamplingPlugin(Plugin[SamplingSettings]):
    """Draws several answers and gives out the best. Put it after `budget` and before `verify`."""

    settings_type: ClassVar[type[PluginSettings]] = SamplingSettings

    def __init__(self, settings: SamplingSettings) -> None:
        super().__init__(settings)
        self.replying: Replying | None = None
        """Everything that lives as long as the server does."""

    @hookimpl
    async def lifespan(self, app: App) -> AsyncIterator[None]:
        from predawn.plugins.sampling.replying import Replying

        self.replying = Replying(app, self.settings)
        yield
        await self.replying.keeping.aclose()

    @hookimpl
    async def around_completion(self, exchange: Exchange, call_next: CallNext) -> Reply:
        if self.replying is None or exchange.parent is not None:
            return await call_next(exchange)
        plan = plan_of(exchange, self.settings)
        if isinstance(plan, Pass):
            if plan.why:
                exchange.decide("sampling", "passed through", why=plan.why)
            return await call_next(exchange)
        return await self.replying.reply(exchange, call_next, plan)
