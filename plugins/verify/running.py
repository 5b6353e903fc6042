"""Verification while the server runs: which verifiers there are, and how a request is to be verified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from predawn.plugins.verify.continuing import Ways
from predawn.plugins.verify.control import Wish, read_wish
from predawn.plugins.verify.meters import VerifyMeters
from predawn.plugins.verify.modes.rules import Rules
from predawn.plugins.verify.observing import Observing
from predawn.plugins.verify.runner import Runner, RunnerLimits
from predawn.plugins.verify.streaming import Streaming
from predawn.plugins.verify.watching import Plan, Tools
from predawn.proxy.dispatch import PluginError
from predawn.proxy.problems import unknown

if TYPE_CHECKING:
    from predawn.plugins import App, CallNext, Exchange, Reply
    from predawn.plugins.verify.settings import Mode, VerifySettings
    from predawn.proxy.extensions import RegisteredVerifier
    from predawn.proxy.settings import Settings

READS = frozenset({"chat", "completions", "responses", "messages"})
STRICTNESS: Mapping[Mode, int] = {"observe": 0, "optimistic": 1, "gate": 2, "intervene": 2}
"""How much of a wrong answer a client may get to see."""


class Running:
    """Made when the server starts, once every plugin has registered its verifiers."""

    def __init__(
        self,
        settings: VerifySettings,
        tools: Tools,
        verifiers: Mapping[str, RegisteredVerifier],
        small: frozenset[str] = frozenset(),
    ) -> None:
        self._settings = settings
        self._small = small
        """Aliases whose model reads no feedback."""
        self._tools = tools
        self._verifiers = verifiers
        """Those of the settings, in their order, as the settings want them."""
        self._plans: dict[tuple[str, Wish], Plan | None] = {}
        self._standard = settings.when == "always"

    @classmethod
    def open(cls, app: App, settings: VerifySettings) -> Running:
        """Raises `PluginError` for a verifier that nobody registered."""
        chosen: dict[str, RegisteredVerifier] = {}
        for entry in settings.verifiers:
            found = app.verifiers.get(entry.name)
            if found is None:
                raise PluginError(f"plugin 'verify': {unknown('verifier', entry.name, app.verifiers)}")
            chosen[entry.name] = replace(
                found, timeout_s=entry.timeout_s or found.timeout_s, fails=entry.fails or found.fails
            )
        limits = RunnerLimits(settings.checks_per_answer, settings.checks_at_once, settings.checks_waiting)
        meters = VerifyMeters(app.metrics, chosen)
        tools = Tools(app.tasks, Runner(app.tasks, limits, meters), meters, _ways(app.settings))
        local = {upstream.name for upstream in app.settings.upstreams if upstream.kind == "local"}
        small = frozenset(model.name for model in app.settings.models if model.upstream in local)
        return cls(settings, tools, chosen, small)

    def plan_for(self, exchange: Exchange) -> Plan | None:
        """How to verify this answer; `None` to leave it alone. Raises `RequestError` for an impossible wish."""
        if exchange.route not in READS:
            return None
        wish = read_wish(exchange.control, self._verifiers)
        budget, settings = exchange.budget, self._settings
        verifies = self._standard or (settings.when == "budget" and budget is not None and budget.verify)
        if verifies and not settings.requests_may_relax:
            wish = self._at_least(wish)
        elif wish.verifies is not None:
            verifies = wish.verifies
        if not verifies or exchange.call_purpose in ("sleep", "probe", "verify"):
            return None
        key = (exchange.alias, wish)
        if key not in self._plans:
            if len(self._plans) > 1000:
                self._plans.clear()  # wishes come from clients
            self._plans[key] = self._plan(exchange.alias, wish)
        return self._plans[key]

    def _at_least(self, wish: Wish) -> Wish:
        """The wish as far as it asks for no less than the settings do."""
        standard = self._settings
        mode = wish.mode or standard.mode
        then = wish.then if wish.then == "stop" else None
        if STRICTNESS[mode] < STRICTNESS[standard.mode]:
            mode = standard.mode
        if then is None and standard.then == "accept":  # what is not put right would be let through
            return Wish(True, "intervene" if standard.mode == "intervene" else mode)
        return Wish(True, mode, None, wish.corrections, wish.retries, then)

    def _plan(self, alias: str, wish: Wish) -> Plan | None:
        settings = self._settings
        models = {entry.name: entry.models for entry in settings.verifiers}
        names = [
            name
            for name in self._verifiers
            if (wish.verifiers is None or name in wish.verifiers) and alias in (models[name] or (alias,))
        ]
        if not names:
            return None
        mode = wish.mode or settings.mode
        rules = Rules(
            min(_given(wish.corrections, settings.corrections), settings.corrections),
            min(_given(wish.retries, settings.retries), settings.retries),
            wish.then or settings.then,
        )
        return Plan(
            mode,
            tuple(self._verifiers[name] for name in names),
            rules,
            settings.longest_step,
            settings.holds == "all",
            settings.remark,
            settings.correction == "replace",
            alias not in self._small if settings.tells_why is None else settings.tells_why,
            settings.verify_tokens,
        )

    async def verified(self, plan: Plan, exchange: Exchange, call_next: CallNext) -> Reply:
        """The answer under this plan."""
        if plan.mode == "observe":
            return await Observing(self._tools, plan, exchange, call_next).reply(call_next)
        return await Streaming(self._tools, plan, exchange, call_next).reply()


def _given(asked: int | None, standard: int) -> int:
    return standard if asked is None else asked


def _ways(settings: Settings) -> Ways:
    foreign = frozenset(upstream.name for upstream in settings.upstreams if upstream.kind == "litellm")
    return Ways(frozenset(model.name for model in settings.models if model.prefill), foreign)
