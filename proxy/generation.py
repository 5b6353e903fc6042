"""One version of the settings, running: upstreams, plugins and the service built from them. A reload makes the next."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pluggy

from predawn.proxy import loading
from predawn.proxy.access import Access
from predawn.proxy.breaker import STATE_VALUES, Breaker, State
from predawn.proxy.clock import Clock
from predawn.proxy.conversation import Tools
from predawn.proxy.dispatch import Hooks, Impl, Observers, PluginError
from predawn.proxy.fastlane.lane import Lane
from predawn.proxy.jobs.opening import no_jobs
from predawn.proxy.jobs.protocol import JobEngine
from predawn.proxy.lifespan import App
from predawn.proxy.live.feed import Feed
from predawn.proxy.metrics import Metrics
from predawn.proxy.models import Models
from predawn.proxy.resilience import Station
from predawn.proxy.service import Service
from predawn.proxy.settings import Settings, UpstreamSettings
from predawn.proxy.tasks import Tasks
from predawn.proxy.upstreams import registry
from predawn.proxy.upstreams.base import EngineUpstream, Upstream

if TYPE_CHECKING:
    from predawn.proxy.exchange import Exchange, Reply
    from predawn.proxy.http_server import Handler
    from predawn.proxy.store import Store

log = logging.getLogger("predawn.generation")


@dataclass(frozen=True, slots=True)
class Shared:
    """What outlives a reload."""

    clock: Clock
    tasks: Tasks
    metrics: Metrics
    access: Access
    open_store: Callable[[], Awaitable[Store]]
    load_plugins: Callable[[Settings], pluggy.PluginManager] = loading.load
    create_upstream: Callable[[UpstreamSettings, Clock], Upstream] = registry.create
    open_jobs: Callable[[], Awaitable[JobEngine]] = no_jobs
    """All three are others where plugins are tried out: `predawn.plugins.testing` brings instances of its own."""
    feed: Feed = field(default_factory=Feed)


@dataclass(frozen=True, slots=True)
class PluginRoute:
    """An endpoint that a plugin brought."""

    method: str
    pattern: re.Pattern[str]
    handler: Handler


@dataclass(slots=True)
class _InForce:
    """The models that plugins send by; a reload that keeps the plugins puts its own in their place."""

    models: Models

    async def send(self, exchange: Exchange) -> Reply:
        return await self.models.send(exchange)


class Generation:
    """Built whole or not at all by `start`; retired once the requests it began are over."""

    def __init__(self, settings: Settings, service: Service, hooks: Hooks, stations: Mapping[str, Station]) -> None:
        self.settings = settings
        self.service = service
        self.hooks = hooks
        self.stations = stations
        self.lane: Lane | None = None
        """The fast lane, unless the settings turn it off."""
        self.routes: tuple[PluginRoute, ...] = ()
        self._opened = AsyncExitStack()
        """Closes the upstreams no other generation uses."""
        self._plugins = AsyncExitStack()
        """Closes the plugins; empty while an earlier generation still owns them."""
        self.in_force = _InForce(service.models)
        """Shared by the generations that share the plugins."""

    @classmethod
    async def start(cls, settings: Settings, shared: Shared, previous: Generation | None = None) -> Generation:
        """Open what the settings name. Raises `PluginError`, `UpstreamError` or `SettingsError`; nothing stays open.

        Upstreams whose settings did not change are taken over with their connections and breakers, and so are all
        plugins if none of theirs did.
        """
        async with AsyncExitStack() as opened:
            stations = {
                upstream.name: await _station(upstream, shared, previous, opened) for upstream in settings.upstreams
            }
            keeps_plugins = previous is not None and _same_plugins(previous.settings, settings)
            if previous is not None and keeps_plugins:
                hooks, observers = previous.hooks, previous.service.tools.observers
            else:
                hooks = Hooks(shared.load_plugins(settings), shared.metrics.hook)
                observers = Observers(hooks.observers, shared.tasks)
            models = Models(settings, stations, hooks, shared.clock, shared.metrics)
            server = settings.server
            tools = Tools(
                shared.clock,
                shared.tasks,
                shared.metrics,
                observers,
                server.keep_alive_comment_s,
                server.log.requests,
                shared.feed,
            )
            made = cls(settings, Service(settings, models, shared.access, tools), hooks, stations)
            if server.fast_lane:
                made.lane = Lane(made.service)
            made.routes = tuple(route for impl in hooks.routes for route in _routes(impl))
            if previous is not None and keeps_plugins:
                made.in_force = previous.in_force
            else:
                await made._open_plugins(settings, shared, observers)
            made._opened = opened.pop_all()
            return made

    async def _open_plugins(self, settings: Settings, shared: Shared, observers: Observers) -> None:
        app = App(
            settings,
            shared.clock,
            shared.metrics,
            shared.tasks,
            shared.open_store,
            self.in_force.send,
            observers.done,
            shared.open_jobs,
            self.hooks.verifiers,
            self.hooks.estimators,
            self.hooks.extractors,
            shared.feed.board,
        )
        async with AsyncExitStack() as opened:
            for impl in self.hooks.lifespans:
                with impl:
                    await opened.enter_async_context(_lifespan(impl, app))
            opened.push_async_callback(observers.aclose)
            self._plugins = opened.pop_all()

    def take_over(self, previous: Generation) -> None:
        """Become the owner of the plugins that `previous` opened and this generation goes on with."""
        if self.hooks is previous.hooks:
            self.in_force.models = self.service.models
            self._plugins, previous._plugins = previous._plugins, self._plugins

    @property
    def engines(self) -> dict[str, str]:
        """The condition of each upstream that has an engine of its own."""
        upstreams = {name: station.upstream for name, station in self.stations.items()}
        return {name: one.condition for name, one in upstreams.items() if isinstance(one, EngineUpstream)}

    @property
    def can_answer(self) -> bool:
        """False while every upstream is an engine that is not ready."""
        engines = self.engines
        return len(engines) < len(self.stations) or not engines or "ready" in engines.values()

    async def aclose(self) -> None:
        """Close the plugins it owns, then the upstreams."""
        try:
            await self._plugins.aclose()
        finally:
            await self._opened.aclose()

    async def retire(self, timeout_s: float, clock: Clock) -> None:
        """Wait for the requests in progress, then close what no later generation took over."""
        end = clock.monotonic() + timeout_s
        while self.service.is_busy and clock.monotonic() < end:
            await clock.sleep(0.1)
            self.service.interrupt_overdue()
        await self.aclose()


@asynccontextmanager
async def _lifespan(impl: Impl, app: App) -> AsyncIterator[None]:
    """A plugin's `lifespan` generator as a context; it must yield exactly once."""
    generator = impl.fn(app)
    try:
        await anext(generator)
    except StopAsyncIteration as exc:
        raise PluginError(f"plugin {impl.plugin!r}: lifespan must yield once") from exc
    try:
        yield
    finally:  # also when a later plugin keeps the server from starting
        try:
            await anext(generator)
        except StopAsyncIteration:
            pass
        else:
            await generator.aclose()
            log.error("plugin %s: lifespan yielded more than once", impl.plugin)


def _same_plugins(old: Settings, new: Settings) -> bool:
    return old.plugins == new.plugins and old.state == new.state and old.allow_plugins == new.allow_plugins


def _routes(impl: Impl) -> list[PluginRoute]:
    found: list[PluginRoute] = []

    def register(method: str, path: str, handler: Any) -> None:
        if not path.startswith("/v1/"):
            raise ValueError(f"{path!r} must begin with /v1/")
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(path))
        found.append(PluginRoute(method.upper(), re.compile(pattern), handler))

    with impl:
        impl.fn(register)
    return found


async def _station(
    settings: UpstreamSettings, shared: Shared, previous: Generation | None, opened: AsyncExitStack
) -> Station:
    if previous is not None:
        standing = previous.stations.get(settings.name)
        if standing is not None and standing.settings == settings:
            standing.shared_by += 1
            opened.push_async_callback(_close, standing)
            return standing
    upstream = shared.create_upstream(settings, shared.clock)
    gauge = shared.metrics.breaker_state(settings.name)

    def changed(state: State) -> None:
        gauge.set(STATE_VALUES[state])

    changed("closed")
    station = Station(upstream, settings, Breaker(settings.name, settings.breaker, shared.clock, changed))
    opened.push_async_callback(_close, station)
    if isinstance(upstream, EngineUpstream):
        upstream.meter(shared.metrics.engine(settings.name))
    await upstream.open()
    return station


async def _close(station: Station) -> None:
    """Close an upstream when the last generation that uses it goes."""
    station.shared_by -= 1
    if station.shared_by == 0:
        await station.upstream.aclose()
