"""The whole proxy in one process without a socket, around the plugins that are tried out."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from multidict import CIMultiDict

from predawn.plugins.testing.clock import ManualClock, settle
from predawn.proxy.exchange import Exchange, RouteName
from predawn.proxy.hookspecs import hookimpl
from predawn.proxy.plugin import Plugin, PluginSettings
from predawn.proxy.upstreams.scripted import Answer, Script, ScriptedUpstream

if TYPE_CHECKING:
    from predawn.plugins.testing.memory import Answered
    from predawn.plugins.testing.result import RunResult
    from predawn.plugins.testing.watch import Watch, WatchedUpstream
    from predawn.proxy.app import App
    from predawn.proxy.clock import Clock
    from predawn.proxy.jobs.memory import MemoryJobEngine
    from predawn.proxy.jobs.protocol import JobEngine
    from predawn.proxy.settings import UpstreamSettings
    from predawn.proxy.store import Store
    from predawn.proxy.upstreams.base import Upstream

TriedPlugin: TypeAlias = Plugin[Any] | type[Plugin[Any]]
UpstreamLike: TypeAlias = ScriptedUpstream | Script | Answer | str | None
PATHS: Mapping[str, str] = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "embeddings": "/v1/embeddings",
    "messages": "/v1/messages",
}
PROMPTS: Mapping[str, str] = {"completions": "prompt", "responses": "input", "embeddings": "input"}
LATE_S = 0.5
"""Real seconds for what is found out about an exchange once it is answered."""
HANG_S = 30.0
"""Real seconds after which a request that nobody answers fails the test."""


class _Witness(Plugin[PluginSettings]):
    """Sees each finished exchange, after the plugins that are tried out."""

    def __init__(self) -> None:
        super().__init__(PluginSettings())
        self.seen: dict[str, Exchange] = {}

    @hookimpl
    async def on_done(self, exchange: Exchange) -> None:
        self.seen[exchange.id] = exchange


class Workbench:
    """A running proxy with the tried plugins in it; made by `workbench`."""

    def __init__(
        self,
        app: App,
        *,
        upstream: ScriptedUpstream,
        watched: WatchedUpstream,
        clock: Clock,
        watch: Watch,
        witness: _Witness,
        strict: bool,
        jobs: MemoryJobEngine,
    ) -> None:
        self.upstream = upstream
        self.jobs = jobs
        """What `App.jobs` gave the plugins: jobs in memory, which run whenever they can."""
        self.clock = clock
        self._app = app
        self._watched = watched
        self._watch = watch
        self._witness = witness
        self._strict = strict
        self._count = 0

    async def run(
        self,
        request: Mapping[str, Any] | bytes | str = "Hello",
        *,
        route: RouteName = "chat",
        stream: bool = False,
        headers: Mapping[str, str] | None = None,
        disconnect_after: int | None = None,
    ) -> RunResult:
        """Send one request and wait until it is answered, recorded and seen by every observer."""
        from predawn.plugins.testing.result import RunResult

        self._count += 1
        sent = CIMultiDict({"x-request-id": f"test-{self._count}", "Content-Type": "application/json"})
        sent.update(headers or {})
        answered = await self.http(
            "POST",
            PATHS[route],
            _body(request, route, stream=stream),
            headers=sent,
            disconnect_after=disconnect_after,
        )
        self._report()
        return RunResult(
            route=route,
            status=answered.status,
            headers=answered.headers,
            raw=answered.body,
            finished=answered.complete,
            upstream=self.upstream,
            done=self._witness.seen.get(sent["x-request-id"]),
            trailers=answered.trailers,
        )

    async def http(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        disconnect_after: int | None = None,
    ) -> Answered:
        """Send any request; for the routes that a plugin brings."""
        from predawn.plugins.testing.memory import Answered, connect

        over = asyncio.get_running_loop().create_future()
        answered = Answered(disconnect_after)
        connection = connect(self._app, answered, over)
        connection.send(method, path, headers or {}, body)
        try:
            async with asyncio.timeout(HANG_S):
                if disconnect_after == 0:
                    await settle()
                    connection.close()
                await self._pass_time(over)
                await self._finish((headers or {}).get("x-request-id"))
        except TimeoutError:
            raise AssertionError(f"nothing ended {method} {path} within {HANG_S:g} real seconds") from None
        finally:
            connection.close()
            await settle()
        return answered

    async def _pass_time(self, over: asyncio.Future[None]) -> None:
        """Wait for the answer; whenever everybody sleeps, let the clock jump to whoever is due first."""
        while not over.done():
            await settle()
            await asyncio.wait([over], timeout=0.001)
            if not over.done() and not (isinstance(self.clock, ManualClock) and await self.clock.jump()):
                await asyncio.wait([over], timeout=0.02)

    async def _finish(self, ident: str | None) -> None:
        """Wait until the last observer has seen the exchange; or all of them, if this was none or has no name.

        What is still found out about it when it is answered may wait for what the test does next.
        """
        service, loop = self._app.generation.service, asyncio.get_running_loop()
        until = loop.time() + LATE_S
        while ident not in self._witness.seen and (service.conversations or (service.is_busy and loop.time() < until)):
            await settle()
            await asyncio.sleep(0.001)
        if ident not in self._witness.seen:
            await service.tools.observers.drain()

    def _report(self) -> None:
        """Raise what the plugins did wrong."""
        for chunk in self._watched.chunks:
            self._watch.check_chunk("of this test", chunk)
        self._watched.chunks.clear()
        found, self._watch.found = self._watch.found, []
        if found and self._strict:
            raise found[0]


@asynccontextmanager
async def workbench(
    *plugins: TriedPlugin,
    upstream: UpstreamLike = None,
    settings: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    clock: Clock | None = None,
    strict: bool = True,
    blocking_s: float | None = 2.0,
) -> AsyncIterator[Workbench]:
    """Run the proxy in this process with these plugins, in this order, in front of a scripted upstream.

    A class is made into a plugin with `settings`, as the settings file would. `config` replaces members of the
    settings file. What a plugin raises or does wrong is raised by `run`, unless `strict` is off: then a test sees what
    a client would. Time is a `ManualClock` that jumps when everybody sleeps, so that nothing takes long.
    """
    from prometheus_client import CollectorRegistry

    from predawn.plugins.testing.watch import Watch, WatchedUpstream
    from predawn.proxy import loading
    from predawn.proxy.access import Access
    from predawn.proxy.app import App
    from predawn.proxy.generation import Generation, Shared
    from predawn.proxy.jobs.memory import MemoryJobEngine
    from predawn.proxy.metrics import Metrics
    from predawn.proxy.tasks import Tasks
    from predawn.proxy.upstreams import registry

    time = clock if clock is not None else ManualClock()
    scripted = upstream if isinstance(upstream, ScriptedUpstream) else ScriptedUpstream(upstream)
    watch, witness, tasks = Watch(blocking_s=blocking_s), _Witness(), Tasks()
    instances = _instances(plugins, settings or {})
    watched = WatchedUpstream(scripted)
    jobs = MemoryJobEngine(time, tasks)

    async def open_jobs() -> JobEngine:
        return jobs

    def create_upstream(described: UpstreamSettings, own_clock: Clock) -> Upstream:
        if described.name != scripted.name:
            return registry.create(described, own_clock)
        scripted.adopt(described.timeouts, own_clock)
        return watched

    async with AsyncExitStack() as stack:
        stack.push_async_callback(tasks.cancel)
        states = _States(stack)
        checked = _settings(config or {}, states.path, scripted.name)
        metrics = Metrics(CollectorRegistry())
        metrics.prepare(checked)
        access = await Access.open(checked, states.open, time, tasks)
        stack.push_async_callback(access.aclose)
        shared = Shared(
            time,
            tasks,
            metrics,
            access,
            states.open,
            load_plugins=lambda _: watch.over(loading.register([*instances, ("testing", witness)])),
            create_upstream=create_upstream,
            open_jobs=open_jobs,
        )
        generation = await Generation.start(checked, shared)
        stack.push_async_callback(generation.aclose)
        stack.push_async_callback(jobs.aclose)
        await jobs.start()
        yield Workbench(
            App(generation, metrics),
            upstream=scripted,
            watched=watched,
            clock=time,
            watch=watch,
            witness=witness,
            strict=strict,
            jobs=jobs,
        )


class _States:
    """A store in a folder of its own, made when somebody asks for it."""

    def __init__(self, stack: AsyncExitStack) -> None:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="predawn-test-"))
        self.path = str(Path(folder) / "state.db")
        self._store: Store | None = None
        self._lock = asyncio.Lock()
        stack.push_async_callback(self._close)  # after all that may still write when it is closed itself

    async def open(self) -> Store:
        from predawn.proxy.store import open_store

        async with self._lock:
            if self._store is None:
                self._store = await open_store(self.path)
        return self._store

    async def _close(self) -> None:
        if self._store is not None:
            await self._store.aclose()


def _settings(config: Mapping[str, Any], state: str, upstream: str) -> Any:
    from predawn.proxy.settings import Settings

    standard: dict[str, Any] = {
        "state": state,
        "access": {"keys": "off"},
        "upstreams": [{"name": upstream, "kind": "scripted", "routes": list(PATHS), "relay": True}],
        "models": [{"name": "*", "upstream": upstream}],
    }
    return Settings.model_validate({**standard, **config})


def _instances(plugins: Iterable[TriedPlugin], settings: Mapping[str, Any]) -> list[tuple[str, Plugin[Any]]]:
    made = [
        plugin(plugin.settings_type.model_validate(settings)) if isinstance(plugin, type) else plugin
        for plugin in plugins
    ]
    names: list[str] = []
    for plugin in made:
        name = plugin.name or re.sub(r"(?<!^)(?=[A-Z])", "_", type(plugin).__name__.removesuffix("Plugin")).lower()
        names.append(name if name not in names else f"{name}_{len(names)}")
    return list(zip(names, made, strict=True))


def _body(request: Mapping[str, Any] | bytes | str, route: RouteName, *, stream: bool) -> bytes:
    if isinstance(request, bytes):
        return request
    asked = {} if isinstance(request, str) else dict(request)
    if isinstance(request, str):
        if route in PROMPTS:
            asked[PROMPTS[route]] = request
        else:
            asked["messages"] = [{"role": "user", "content": request}]
    asked.setdefault("model", "test")
    if route == "messages":
        asked.setdefault("max_tokens", 1000)
    if stream:
        asked["stream"] = True
    return msgspec.json.encode(asked)


async def run_plugin(
    plugin: TriedPlugin | Iterable[TriedPlugin],
    request: Mapping[str, Any] | bytes | str = "Hello",
    *,
    upstream: UpstreamLike = None,
    settings: Mapping[str, Any] | None = None,
    route: RouteName = "chat",
    stream: bool = False,
    headers: Mapping[str, str] | None = None,
    disconnect_after: int | None = None,
    config: Mapping[str, Any] | None = None,
    clock: Clock | None = None,
    strict: bool = True,
    blocking_s: float | None = 2.0,
) -> RunResult:
    """Send one request through the whole proxy with this plugin in it, in this process and without a socket.

    `request` is a text, a request's members (`model` is added where it is missing), or a body's very bytes.
    `disconnect_after` makes the client go away once it has seen so many events. See `workbench` for the rest, and for
    several requests to the same plugin.
    """
    tried = [plugin] if isinstance(plugin, Plugin | type) else list(plugin)
    async with workbench(
        *tried,
        upstream=upstream,
        settings=settings,
        config=config,
        clock=clock,
        strict=strict,
        blocking_s=blocking_s,
    ) as bench:
        return await bench.run(request, route=route, stream=stream, headers=headers, disconnect_after=disconnect_after)
