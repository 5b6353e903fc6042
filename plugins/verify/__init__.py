"""`verify`: reads answers while they are written, and steps in only where one goes wrong (arXiv 2602.11202).

Five ideas carry it:

- *cutting*: text is cut into steps as it comes, in ways that do not depend on its chunks (`cutting.py`, `trace.py`);
- *checks*: each verifier's look at each step is a small task beside the generation, bounded and isolated (`runner.py`);
- a *flow* takes chunks and verdicts in and says what to do, without any waiting (`modes/`);
- *mending*: a wrong step is cut off, and the upstream goes on from what is left in the way that it can (`mending.py`,
  `continuing.py`);
- what the client was sent is never taken back: text waits until it is verified, or is sent and can only be stopped.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, ClassVar

from predawn.plugins import CallNext, Exchange, Plugin, PluginSettings, RegisterVerifier, Reply, Verifier, hookimpl
from predawn.plugins.verify.settings import VerifySettings

if TYPE_CHECKING:
    from predawn.plugins.verify.running import Running
    from predawn.proxy.extensions import Verifier
    from predawn.proxy.lifespan import App

__all__ = ["VerifyPlugin", "VerifySettings"]


class VerifyPlugin(Plugin[VerifySettings]):
    """Put it last: what it reads is then what the upstream says."""

    settings_type: ClassVar[type[PluginSettings]] = VerifySettings

    def __init__(self, settings: VerifySettings) -> None:
        super().__init__(settings)
        self.running: Running | None = None
        """Everything that lives as long as the server does."""
        self._built_in: list[Verifier] = []

    @hookimpl
    def register_verifiers(self, register: RegisterVerifier) -> None:
        from predawn.plugins.verify.verifiers import BUILT_IN, create

        for entry in self.settings.verifiers:
            if entry.name in BUILT_IN:
                verifier = create(entry.name, entry.options)
                self._built_in.append(verifier)
                register(verifier)

    @hookimpl
    async def lifespan(self, app: App) -> AsyncIterator[None]:
        from predawn.plugins.verify.running import Running
        from predawn.plugins.verify.verifiers import AsksModel, Opens

        with ExitStack() as opened:
            for verifier in self._built_in:
                if isinstance(verifier, AsksModel):
                    verifier.bind(app.send, self.settings.check_model)
                if isinstance(verifier, Opens):
                    opened.callback(verifier.close)
                    verifier.open()
            self.running = Running.open(app, self.settings)
            yield

    @hookimpl
    async def around_completion(self, exchange: Exchange, call_next: CallNext) -> Reply:
        """Read the answer along; or leave it alone, where it has no steps or nobody asked."""
        running = self.running
        plan = running.plan_for(exchange) if running is not None else None
        if running is None or plan is None:
            return await call_next(exchange)
        return await running.verified(plan, exchange, call_next)
