"""What the live page shows of sleep: the contexts of all tenants that something happens to, and how the night goes.

Never what a context says: its id, its state, and how far sleep has come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from predawn.plugins.sleep.contexts import SLEEPABLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from predawn.plugins import App
    from predawn.plugins.sleep.contexts import Context
    from predawn.plugins.sleep.night import Night
    from predawn.plugins.sleep.shelf import Shelf

MOST = 40


class Showing:
    """Rows for the page's boards `contexts` and `night`."""

    def __init__(self, shelf: Shelf, night: Night) -> None:
        self._shelf = shelf
        self._night = night

    def offer(self, app: App) -> tuple[Callable[[], None], ...]:
        """Show them; call what is returned to withdraw them."""
        return app.live.offer("contexts", self.contexts), app.live.offer("night", self.night)

    async def contexts(self) -> list[dict[str, Any]]:
        """Those being slept on first, then those that were used or changed last."""
        return [self._row(context) for context in await self._shelf.recent(MOST)]

    async def night(self) -> list[dict[str, Any]]:
        """One row: what waits, what runs, and which upstreams sleep may ask."""
        status = self._night.status()
        gates: dict[str, str] = status.pop("gates")
        return [{**status, "gates": ", ".join(f"{name}: {why}" for name, why in gates.items())}]

    def _row(self, context: Context) -> dict[str, Any]:
        progress = context.progress
        waits = self._night.waits_for(context.tenant, context.id)
        if waits is None and context.state not in SLEEPABLE:
            waits = self._night.waits_elsewhere(context, None)
        return {
            "id": context.id,
            "tenant": context.tenant,
            "source": context.source,
            "state": context.state,
            "tokens": context.tokens,
            "uses": context.uses,
            "version": context.version,
            "stage": progress.stage,
            "pass_no": progress.pass_no,
            "max_passes": progress.max_passes,
            "spent": progress.tokens,
            "budget": progress.budget_tokens,
            "waits": waits.get("why") if waits is not None else None,
        }
