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

from predawn.proxy import logs, tls
from predawn.proxy.access import Access
from predawn.proxy.app import App, shutting_down
from predawn.proxy.clock import Clock, SystemClock
from predawn.proxy.dispatch import HookError, PluginError
from predawn.proxy.fastlane.door import Doors
from predawn.proxy.generation import Generation, Shared
from predawn.proxy.http_server import HttpServer
from predawn.proxy.jobs.opening import JobsOpener
from predawn.proxy.jobs.protocol import JobsError
from predawn.proxy.listening import Listening, Sockets, bind, listen
from predawn.proxy.metrics import Metrics, new_registry, watch_event_loop
from predawn.proxy.problems import SettingsError
from predawn.proxy.restarts import fixed
from predawn.proxy.settings import Settings
from predawn.proxy.store import StoreError
from predawn.proxy.tasks import Tasks
from predawn.proxy.upstreams.base import UpstreamError

if TYPE_CHECKING:
    from ssl import SSLContext

    from predawn.proxy.store import Store
    from predawn.proxy.workers.leash import Leash

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
        self,
        settings: Settings,
        app: App,
        shared: Shared,
        jobs: JobsOpener,
        doors: Doors,
        *,
        api: Listening | None,
        admin: Listening,
        certificate: tls.Certificate | None,
    ) -> None:
        self.settings = settings
        self.app = app
        self.doors = doors
        self._api = api
        self._admin = admin
        self._certificate = certificate
        self._shared = shared
        self._jobs = jobs
        self._reloading = asyncio.Lock()

    @property
    def port(self) -> int:
        """Of the API; a worker has none."""
        assert self._api is not None
        return self._api.port

    @property
    def admin_port(self) -> int:
        return self._admin.port

    async def reload(self, load: Callable[[], Settings], agree: Callable[[], Awaitable[None]] | None = None) -> bool:
        """Serve with new settings from now on, or keep the old ones and say why. Running requests are not disturbed.

        `agree` is awaited when the new ones are ready and not in force yet; it raises one of `StartErrors` to stop it.
        """
        async with self._reloading:
            previous = self.app.generation
            try:
                settings = await asyncio.to_thread(load)  # a long YAML file takes a while
                shown = await _shown(settings) if self._certificate is not None else None
                made = await Generation.start(settings, self._shared, previous)
                try:
                    if agree is not None:
                        await agree()
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
            if self._certificate is not None and shown is not None:
                self._certificate.renew(shown)
            await self._jobs.start()
            self._shared.metrics.reloaded(ok=True)
            log.info("reloaded: %d models, %d plugins", len(settings.models), len(settings.plugins))
            if late := fixed(previous.settings, settings):
                log.warning("changes of %s take effect at the next start", ", ".join(late))
            self.app.retiring.add(previous)
            self._shared.tasks.spawn(self._retire(previous, settings.server.drain_timeout_s), "retire")
            return True

    async def _retire(self, generation: Generation, timeout_s: float) -> None:
        await generation.retire(timeout_s, self._shared.clock)
        self.app.retiring.discard(generation)

    def count_failed_reload(self) -> None:
        """Settings were refused before they came here."""
        self._shared.metrics.reloaded(ok=False)

    def hand_over(self) -> None:
        """Accept nothing more, for another process does; each answer from now on is the last of its connection."""
        self.app.leaving = True
        self.doors.http.leaving = True
        if self._api is not None:
            self._api.close()
        self._admin.close()

    @property
    def _is_connected(self) -> bool:
        return bool(self.doors.open or self.doors.http.connections)

    async def drain(self, *, grace_s: float) -> None:
        """Stop in good order: not ready, then refusing, then waiting for streams, then ending them with an error.

        A server that handed over goes on serving the connections it has, and refuses nobody.
        """
        clock, timeout_s = self._shared.clock, self.settings.server.drain_timeout_s
        self.app.is_ready = False
        log.info("shutting down: serving for %g s more, then waiting for streams up to %g s", grace_s, timeout_s)
        await self._jobs.drain()
        end = clock.monotonic() + grace_s
        while clock.monotonic() < end and (self._is_connected or not self.app.leaving):
            await clock.sleep(0.05)
        self.app.refuses = not self.app.leaving
        if self._api is not None:
            await self._api.drain()
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
    sockets: Sockets | None = None,
) -> AsyncIterator[Server]:
    """Serve until the block ends, or without an `api` only do jobs. Raises what `StartErrors` lists.

    The message names the culprit. `sockets` are those that a supervisor bound for this worker.
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
        stack.callback(metrics.postponed.settle)
        jobs = JobsOpener(settings, clock, tasks, runs=settings.jobs.in_servers or not api)
        stack.push_async_callback(jobs.aclose)  # also when a later plugin keeps the server from starting
        shared = Shared(clock, tasks, metrics, access, store, open_jobs=jobs)
        app = App(await Generation.start(settings, shared), metrics, worker=worker)
        stack.push_async_callback(_close_generations, app)
        stack.push_async_callback(jobs.drain)
        if not api and not jobs.is_open:
            raise JobsError("there is nothing to work on: no plugin of these settings has jobs")
        http = HttpServer(app.handle, body_limit=int(settings.server.body_limit_mb * (1 << 20)))
        doors = Doors(app, http)
        certificate = tls.Certificate(settings.server.tls) if api and settings.server.tls is not None else None
        listening = await _listen(settings, doors, stack, sockets, certificate) if api else None
        admin = await _listen_admin(settings, app, stack, listening.port if listening else 0, sockets)
        tasks.spawn(watch_event_loop(metrics, clock), "event-loop-lag")
        tasks.spawn(_sweep(app, doors, clock), "time-limits")
        await jobs.start()
        if listening is None:
            log.info("working on jobs, metrics on port %d", admin.port)
        else:
            url = f"{'https' if certificate else 'http'}://{settings.server.host}:{listening.port}/v1"
            log.info("serving on %s, metrics on port %d; %s", url, admin.port, access.describe())
        gc.collect()
        gc.freeze()  # what was built until now is never collected: about 10 % of a request's CPU
        # rarer than the default, yet garbage in circles stays below some 20 MB; going through 50,000 objects takes 50
        # ms and more, in which everybody waits: 500 verified streams in `optimistic` did so twice a second at 20,000
        gc.set_threshold(100_000, 1, 300)
        yield Server(settings, app, shared, jobs, doors, api=listening, admin=admin, certificate=certificate)


async def _sweep(app: App, doors: Doors, clock: Clock) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await clock.sleep(1.0)
        doors.sweep()
        app.generation.service.interrupt_overdue()
        loop.call_soon(app.metrics.postponed.settle)  # not from here: what goes wrong there must not end the sweeping


async def _close_generations(app: App) -> None:
    async with AsyncExitStack() as closing:
        for generation in app.generations:
            closing.push_async_callback(generation.aclose)


async def _listen(
    settings: Settings,
    doors: Doors,
    stack: AsyncExitStack,
    sockets: Sockets | None,
    certificate: tls.Certificate | None,
) -> Listening:
    server, http = settings.server, doors.http
    bound = sockets.api if sockets is not None else await asyncio.to_thread(bind, server.host, server.port)
    listening = await listen(doors, bound, tls=certificate.context if certificate is not None else None)
    stack.push_async_callback(_stop, http, listening)
    stack.callback(doors.close)
    return listening


async def _listen_admin(
    settings: Settings, app: App, stack: AsyncExitStack, port: int, sockets: Sockets | None
) -> Listening:
    server = settings.server
    wanted = server.admin_port
    if wanted is None:
        wanted = port + 1000 if server.port else 0
    admin = HttpServer(app.handle_admin, body_limit=int(server.body_limit_mb * (1 << 20)))
    bound = sockets.admin if sockets is not None else await asyncio.to_thread(bind, server.admin_host, wanted)
    listening = await listen(admin, bound)
    stack.push_async_callback(_stop, admin, listening)
    app.live.admin_port = listening.port
    stack.callback(app.live.viewers.close)
    return listening


async def _stop(http: HttpServer, listening: Listening) -> None:
    listening.close()
    await http.shutdown(timeout=1.0)
    await listening.wait_closed()


async def _shown(settings: Settings) -> SSLContext | None:
    part = settings.server.tls
    return await asyncio.to_thread(tls.load, part) if part is not None else None


async def serve_until_stopped(
    settings: Settings,
    load: Callable[[], Settings],
    *,
    worker: int = 0,
    ready: Callable[[Server], Awaitable[None]] | None = None,
    api: bool = True,
    leash: Leash | None = None,
) -> None:
    """Serve until SIGTERM (drains) or SIGINT (drains without grace); a second signal ends at once; SIGHUP reloads.

    Without an `api` there is nothing to serve, only jobs to do. A worker follows its `leash`, too.
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

    def leave(grace_s: float) -> None:
        if not stopping.done():
            stopping.set_result(grace_s)

    if leash is not None:
        await leash.attach(leave)
    sockets = leash.sockets if leash is not None else None
    async with running(settings, worker=worker, api=api, sockets=sockets) as started:
        server = started
        tasks = server._shared.tasks  # noqa: SLF001
        if leash is not None:
            leash.serve(server, lambda agree: tasks.spawn(_reload(started, load, agree), "reload"))
        if ready is not None:
            await ready(server)
        grace_s = await stopping
        if leash is not None:
            leash.leaving()
        drain = tasks.spawn(server.drain(grace_s=grace_s), "drain")
        ended = tasks.spawn(now.wait(), "second-signal")
        await asyncio.wait([drain, ended], return_when=asyncio.FIRST_COMPLETED)


async def _reload(
    server: Server, load: Callable[[], Settings], agree: Callable[[], Awaitable[None]] | None = None
) -> bool:
    done = await server.reload(load, agree)
    if done:
        settings = server.app.generation.settings
        logs.configure(settings.server.log, secrets=logs.secrets_in(settings))
    return done
