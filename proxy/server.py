"""One process that serves: start, signals, reload, drain, stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from predawn.proxy import logs
from predawn.proxy.access import Access
from predawn.proxy.app import App, shutting_down
from predawn.proxy.clock import Clock, SystemClock
from predawn.proxy.dispatch import HookError, PluginError
from predawn.proxy.generation import Generation, Shared
from predawn.proxy.http_server import HttpServer, listen
from predawn.proxy.jobs.opening import JobsOpener
from predawn.proxy.jobs.protocol import JobsError
from predawn.proxy.metrics import Metrics, new_registry, watch_event_loop
from predawn.proxy.problems import SettingsError
from predawn.proxy.settings import Settings
from predawn.proxy.store import StoreError
from predawn.proxy.tasks import Tasks
from predawn.proxy.upstreams.base import UpstreamError

if TYPE_CHECKING:
    from predawn.proxy.store import Store

log = logging.getLogger("predawn.server")
StartErrors = (SettingsError, PluginError, HookError, UpstreamError, StoreError, OSError, ImportError)
"""What keeps a server from starting and a reload from happening."""


@dataclass(slots=True)
class _StoreOpener:
    """Opens the store once, when somebody first needs it."""

    state: str
    _lock: asyncio.Lock
    _store: Store | None = None

    async def __call__(self) -> Store:
        from predawn.proxy.store import open_store

        async with self._lock:
            if self._store is None:
                self._store = await open_store(self.state)
        return self._store

    async def aclose(self) -> None:
        if self._store is not None:
            await self._store.aclose()


class Server:
    """A running server; built by `running`."""

    def __init__(
        self, settings: Settings, app: App, shared: Shared, jobs: JobsOpener, *, port: int | None, admin_port: int
    ) -> None:
        self.settings = settings
        self.app = app
        self._port = port
        self.admin_port = admin_port
        self._shared = shared
        self._jobs = jobs
        self._reloading = asyncio.Lock()

    @property
    def port(self) -> int:
        """Of the API; a worker has none."""
        assert self._port is not None
        return self._port

    async def reload(self, load: Callable[[], Settings]) -> bool:
        """Serve with new settings from now on, or keep the old ones and say why. Running requests are not disturbed."""
        async with self._reloading:
            previous = self.app.generation
            try:
                settings = await asyncio.to_thread(load)  # a long YAML file takes a while
                made = await Generation.start(settings, self._shared, previous)
                try:
                    await self._shared.access.reload(settings)
                except BaseException:
                    await made.aclose()
                    raise
            except StartErrors as exc:
                log.error("reload failed, the old settings stay in force")
                for line in str(exc).splitlines():
                    log.error("reload: %s", line)
                self._shared.metrics.reloaded(ok=False)
                return False
            self._shared.metrics.prepare(settings)
            made.take_over(previous)
            self.app.generation = made
            await self._jobs.start()
            self._shared.metrics.reloaded(ok=True)
            log.info("reloaded: %d models, %d plugins", len(settings.models), len(settings.plugins))
            if settings.server != previous.settings.server or settings.state != previous.settings.state:
                log.warning("changes of `server` and `state` take effect at the next start")
            self.app.retiring.add(previous)
            self._shared.tasks.spawn(self._retire(previous, settings.server.drain_timeout_s), "retire")
            return True

    async def _retire(self, generation: Generation, timeout_s: float) -> None:
        await generation.retire(timeout_s, self._shared.clock)
        self.app.retiring.discard(generation)

    async def drain(self, *, grace_s: float) -> None:
        """Stop in good order: not ready, then refusing, then waiting for streams, then ending them with an error."""
        clock, timeout_s = self._shared.clock, self.settings.server.drain_timeout_s
        self.app.is_ready = False
        log.info("shutting down: serving for %g s more, then waiting for streams up to %g s", grace_s, timeout_s)
        await self._jobs.drain()
        if grace_s:
            await clock.sleep(grace_s)
        self.app.refuses = True
        end = clock.monotonic() + timeout_s
        while any(generation.service.is_busy for generation in self.app.generations) and clock.monotonic() < end:
            await clock.sleep(0.05)
        for generation in self.app.generations:
            for conversation in tuple(generation.service.conversations):
                conversation.interrupt(shutting_down())
        await clock.sleep(0)


@asynccontextmanager
async def running(
    settings: Settings,
    *,
    clock: Clock | None = None,
    registry: CollectorRegistry | None = None,
    worker: int = 0,
    api: bool = True,
) -> AsyncIterator[Server]:
    """Serve until the block ends, or without an `api` only do jobs. Raises what `StartErrors` lists.

    The message names the culprit.
    """
    clock = clock if clock is not None else SystemClock()
    tasks = Tasks()
    metrics = Metrics(registry if registry is not None else new_registry())
    metrics.prepare(settings)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(tasks.cancel)
        store = _StoreOpener(settings.state, asyncio.Lock())
        stack.push_async_callback(store.aclose)
        access = await Access.open(settings, store, clock, tasks)
        stack.push_async_callback(access.aclose)
        jobs = JobsOpener(settings, clock, tasks, runs=settings.jobs.in_servers or not api)
        stack.push_async_callback(jobs.aclose)  # also when a later plugin keeps the server from starting
        shared = Shared(clock, tasks, metrics, access, store, open_jobs=jobs)
        app = App(await Generation.start(settings, shared), metrics, worker=worker)
        stack.push_async_callback(_close_generations, app)
        stack.push_async_callback(jobs.drain)
        if not api and not jobs.is_open:
            raise JobsError("there is nothing to work on: no plugin of these settings has jobs")
        port = await _listen(settings, app, stack, worker) if api else None
        admin_port = await _listen_admin(settings, app, stack, port or 0, worker)
        tasks.spawn(watch_event_loop(metrics, clock), "event-loop-lag")
        tasks.spawn(_sweep(app, clock), "time-limits")
        await jobs.start()
        if port is None:
            log.info("working on jobs, metrics on port %d", admin_port)
        else:
            host = settings.server.host
            log.info("serving on http://%s:%d/v1, metrics on port %d; %s", host, port, admin_port, access.describe())
        gc.collect()
        gc.freeze()  # what was built until now is never collected: about 10 % of a request's CPU
        gc.set_threshold(10_000, 20, 50)  # rarer than the default, yet garbage in circles stays below some 2 MB
        yield Server(settings, app, shared, jobs, port=port, admin_port=admin_port)


async def _sweep(app: App, clock: Clock) -> None:
    while True:
        await clock.sleep(1.0)
        app.generation.service.interrupt_overdue()


async def _close_generations(app: App) -> None:
    async with AsyncExitStack() as closing:
        for generation in app.generations:
            closing.push_async_callback(generation.aclose)


async def _listen(settings: Settings, app: App, stack: AsyncExitStack, worker: int) -> int:
    server = settings.server
    http = HttpServer(app.handle, body_limit=int(server.body_limit_mb * (1 << 20)))
    sockets, port = await listen(http, server.host, server.port, reuse_port=server.workers > 1 or worker > 0)
    stack.push_async_callback(_stop, http, sockets)
    return port


async def _listen_admin(settings: Settings, app: App, stack: AsyncExitStack, port: int, worker: int) -> int:
    server = settings.server
    wanted = server.admin_port
    if wanted is None:
        wanted = port + 1000 if server.port else 0
    if wanted:
        wanted += worker
    admin = HttpServer(app.handle_admin, body_limit=int(server.body_limit_mb * (1 << 20)))
    sockets, admin_port = await listen(admin, server.admin_host, wanted)
    stack.push_async_callback(_stop, admin, sockets)
    app.live.admin_port = admin_port
    stack.callback(app.live.viewers.close)
    return admin_port


async def _stop(http: HttpServer, sockets: asyncio.Server) -> None:
    sockets.close()
    await http.shutdown(timeout=1.0)
    await sockets.wait_closed()


async def serve_until_stopped(
    settings: Settings,
    load: Callable[[], Settings],
    *,
    worker: int = 0,
    ready: Callable[[Server], Awaitable[None]] | None = None,
    api: bool = True,
) -> None:
    """Serve until SIGTERM (drains) or SIGINT (drains without grace); a second signal ends at once; SIGHUP reloads.

    Without an `api` there is nothing to serve, only jobs to do.
    """
    loop = asyncio.get_running_loop()
    stopping: asyncio.Future[float] = loop.create_future()
    now = asyncio.Event()
    server: Server | None = None

    def stop(grace_s: float) -> None:
        if stopping.done():
            now.set()
        else:
            stopping.set_result(grace_s)

    def hang_up() -> None:
        if server is not None:
            server._shared.tasks.spawn(_reload(server, load), "reload")  # noqa: SLF001 - this module's own

    # before the server says that it serves: whoever waits for that may send a signal at once
    loop.add_signal_handler(signal.SIGTERM, stop, settings.server.drain_grace_s)
    loop.add_signal_handler(signal.SIGINT, stop, 0.0)
    loop.add_signal_handler(signal.SIGHUP, hang_up)
    async with running(settings, worker=worker, api=api) as started:
        server = started
        tasks = server._shared.tasks  # noqa: SLF001
        if ready is not None:
            await ready(server)
        grace_s = await stopping
        drain = tasks.spawn(server.drain(grace_s=grace_s), "drain")
        ended = tasks.spawn(now.wait(), "second-signal")
        await asyncio.wait([drain, ended], return_when=asyncio.FIRST_COMPLETED)


async def _reload(server: Server, load: Callable[[], Settings]) -> None:
    if await server.reload(load):
        settings = server.app.generation.settings
        logs.configure(settings.server.log, secrets=logs.secrets_in(settings))
