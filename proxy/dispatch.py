"""What plugins registered, frozen at start-up into plain tuples of callables, and awaited by one rule per kind.

pluggy finds and validates; it does not call. Its `firstresult` stops at the first coroutine and its wrappers leave
before the await, so an async proxy needs its own calling: serial for edits, first answer for deciders, an onion around
the upstream, one plain function per stream, a bounded queue for observers.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import types
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from time import perf_counter
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

import pluggy

from predawn.proxy.exchange import Chunk, ChunkFilter, Exchange, Reply, RequestError, closing
from predawn.proxy.extensions import (
    ExtensionError,
    Extracted,
    RegisteredExtractor,
    comparable,
    registered_estimator,
    registered_extractor,
    registered_verifier,
)
from predawn.proxy.hookspecs import CallNext, Spec
from predawn.proxy.joining import Passing, listening_to
from predawn.proxy.plugin import Plugin
from predawn.proxy.tasks import Tasks
from predawn.proxy.upstreams.base import UpstreamError

log = logging.getLogger("predawn.hooks")
T = TypeVar("T")

REQUEST_HOOKS = frozenset({"on_request", "assess", "allocate", "around_completion", "chunk_filter", "on_done"})
FAILURES_UNTIL_OFF = 5
OBSERVER_QUEUE = 10_000


class HookError(Exception):
    """A plugin failed where its failure must reach the client."""

    def __init__(self, plugin: str, hook: str) -> None:
        super().__init__(f"plugin {plugin!r} failed in {hook}")
        self.plugin = plugin
        self.hook = hook


class PluginError(Exception):
    """A plugin that cannot be used; start-up stops and says why."""


class HookMeters(Protocol):
    """Where hook calls are counted."""

    @property
    def took(self) -> Callable[[float], None]: ...

    def failed(self, reason: str) -> None: ...


class NoMeters:
    """Counts nothing; for tests and tools."""

    def took(self, seconds: float) -> None: ...

    def failed(self, reason: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Impl:
    """One plugin's implementation of one hook."""

    plugin: str
    hook: str
    fn: Callable[..., Any]
    timeout_s: float
    skip_errors: bool
    models: frozenset[str] | None
    meters: HookMeters
    took: Callable[[float], None]
    """`meters.took`, looked up once."""

    def serves(self, model: str) -> bool:
        return self.models is None or model in self.models

    def __enter__(self) -> None:
        """Blame the plugin for what is raised inside, unless it is an answer of its own or an upstream's failure."""

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: object) -> None:
        if exc is not None and (blamed := self.blame(exc)) is not None:
            raise blamed from exc

    def blame(self, exc: BaseException) -> HookError | None:
        """The error that names the plugin; `None` for what is not its fault. Counts the failure."""
        if not isinstance(exc, Exception) or isinstance(exc, (RequestError, UpstreamError, HookError)):
            return None
        self.meters.failed("timeout" if isinstance(exc, TimeoutError) else "error")
        return HookError(self.plugin, self.hook)


def implementations(
    pm: pluggy.PluginManager, hook: str, meters: Callable[[str, str], HookMeters] = lambda _plugin, _hook: NoMeters()
) -> tuple[Impl, ...]:
    """Implementations of a hook that have work, in call order; raises `PluginError` where the kind is wrong."""
    caller = getattr(pm.hook, hook)
    spec = getattr(Spec, hook)
    found: list[Impl] = []
    for impl in reversed(caller.get_hookimpls()):  # pluggy keeps them last-called-first
        _check_kind(impl, hook, spec)
        plugin: Plugin[Any] = impl.plugin
        if hook in plugin.unused_hooks:
            continue
        settings = plugin.settings
        counting = meters(impl.plugin_name, hook)
        found.append(
            Impl(
                impl.plugin_name,
                hook,
                impl.function,
                settings.timeout_s,
                settings.on_error == "skip",
                frozenset(settings.models) if settings.models is not None else None,
                counting,
                counting.took,
            )
        )
    return tuple(found)


def _check_kind(impl: pluggy.HookImpl, hook: str, spec: Callable[..., Any]) -> None:
    name = impl.plugin_name
    if impl.wrapper or impl.hookwrapper:
        raise PluginError(f"plugin {name!r}: {hook} may not be a wrapper; use around_completion")
    wanted = _kind(spec)
    if hook == "lifespan":
        wanted = "an async generator (async def with one yield)"
    given = _kind(impl.function)
    if given != wanted:
        raise PluginError(f"plugin {name!r}: {hook} must be {wanted}, it is {given}")
    parameters = [p for p in inspect.signature(spec).parameters if p != "self"]
    if list(impl.argnames) != parameters:
        raise PluginError(
            f"plugin {name!r}: {hook} must take ({', '.join(parameters)}), it takes ({', '.join(impl.argnames)})"
        )


def _kind(function: Callable[..., Any]) -> str:
    if inspect.isasyncgenfunction(function):
        return "an async generator (async def with one yield)"
    return "async def" if inspect.iscoroutinefunction(function) else "a plain def"


@types.coroutine
def _continued(coro: Coroutine[Any, Any, T], yielded: Any) -> Generator[Any, Any, T]:
    """Go on with a coroutine whose first step has already been taken and yielded `yielded`."""
    while True:
        try:
            sent = yield yielded
        except GeneratorExit:
            coro.close()
            raise
        except BaseException as exc:  # noqa: BLE001 - handed to the coroutine, which decides
            step: Callable[[], Any] = _thrower(coro, exc)
        else:
            step = _sender(coro, sent)
        try:
            yielded = step()
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]


def _thrower(coro: Coroutine[Any, Any, Any], exc: BaseException) -> Callable[[], Any]:
    return lambda: coro.throw(exc)


def _sender(coro: Coroutine[Any, Any, Any], value: Any) -> Callable[[], Any]:
    return lambda: coro.send(value)


async def rest(coro: Coroutine[Any, Any, T], yielded: Any, timeout_s: float) -> T:
    """Await what is left, for at most `timeout_s`, of a hook whose first step yielded `yielded`.

    Most hooks finish without suspending. So callers take the first step themselves, at 0.3 µs; only what is left after
    it needs a timer, which costs 3.
    """
    async with asyncio.timeout(timeout_s):
        return await _continued(coro, yielded)


class Pipeline:
    """The hooks that act on one model, ready to run. An empty tuple costs one truth test."""

    __slots__ = ("allocators", "around", "assessors", "complete", "editors", "filters", "may_wait", "wants_usage")

    def __init__(self, hooks: Hooks, model: str, send: CallNext) -> None:
        def serving(impls: tuple[Impl, ...]) -> tuple[Impl, ...]:
            return tuple(impl for impl in impls if impl.serves(model))

        self.editors = serving(hooks.editors)
        self.assessors = serving(hooks.assessors)
        self.allocators = serving(hooks.allocators)
        self.around = serving(hooks.around)
        self.filters = serving(hooks.filters)
        self.may_wait = bool(self.editors or self.assessors or self.allocators or self.around)
        """True if a plugin may make the client wait before the upstream answers."""
        self.wants_usage = any(
            plugin.wants_usage and (plugin.settings.models is None or model in plugin.settings.models)
            for plugin in hooks.plugins
        )
        call = send
        for impl in reversed(self.around):
            call = _layer(impl, call)
        self.complete: CallNext = call
        """The upstream call with every `around_completion` of this model around it."""

    @property
    def is_plain(self) -> bool:
        """True if no plugin stands between the client and the upstream; observers may still look on."""
        return not (self.may_wait or self.filters)

    @classmethod
    def bare(cls, send: CallNext) -> Pipeline:
        """No plugin at all."""
        empty = pluggy.PluginManager("predawn")
        empty.add_hookspecs(Spec)
        return cls(Hooks(empty), "", send)

    async def edit(self, exchange: Exchange) -> None:
        """Run `on_request`, one plugin after another. Raises `HookError`, or the plugin's own `RequestError`."""
        began = perf_counter()
        for impl in self.editors:
            try:
                coro = impl.fn(exchange)
                try:
                    yielded = coro.send(None)
                except StopIteration:
                    pass
                else:
                    await rest(coro, yielded, impl.timeout_s)
            except BaseException as exc:
                blamed = impl.blame(exc)
                if blamed is None:
                    raise
                if not impl.skip_errors:
                    raise blamed from exc
                log.warning("%s and is skipped", blamed, exc_info=exc)
                exchange.decide("predawn", "plugin skipped", plugin=impl.plugin, hook=impl.hook)
            ended = perf_counter()
            impl.took(ended - began)
            began = ended

    async def decide(self, exchange: Exchange) -> None:
        """Fill `exchange.difficulty` and `exchange.budget` with the first answers that are not `None`."""
        if self.assessors:
            exchange.difficulty = await _first(self.assessors, exchange)
        if self.allocators:
            exchange.budget = await _first(self.allocators, exchange)

    def open_filters(self, exchange: Exchange) -> tuple[ChunkFilter, ...]:
        """The filters of one answer. Raises `HookError`."""
        opened: list[ChunkFilter] = []
        for impl in self.filters:
            try:
                function = impl.fn(exchange)
            except BaseException as exc:
                if (blamed := impl.blame(exc)) is not None:
                    raise blamed from exc
                raise
            if function is not None:
                opened.append(_named(impl, function))
        return tuple(opened)


async def _first(impls: tuple[Impl, ...], exchange: Exchange) -> Any:
    """The first answer that is not `None`; a plugin that raises is passed over."""
    began = perf_counter()
    for impl in impls:
        try:
            coro = impl.fn(exchange)
            try:
                yielded = coro.send(None)
            except StopIteration as stop:
                answer = stop.value
            else:
                answer = await rest(coro, yielded, impl.timeout_s)
        except Exception as exc:
            impl.meters.failed("timeout" if isinstance(exc, TimeoutError) else "error")
            log.exception("plugin %s failed in %s; the next one is asked", impl.plugin, impl.hook)
            continue
        ended = perf_counter()
        impl.took(ended - began)
        began = ended
        if answer is not None:
            return answer
    return None


def _layer(impl: Impl, inner: CallNext) -> CallNext:
    fn = impl.fn

    async def layer(exchange: Exchange) -> Reply:
        try:
            reply: Reply = await fn(exchange, inner)
        except BaseException as exc:
            if (blamed := impl.blame(exc)) is not None:
                raise blamed from exc
            raise
        if reply.is_raw:
            return reply
        chunks, listen = _blamed(impl, reply.chunks), listening_to(reply.chunks)
        return reply.with_chunks(chunks if listen is None else Passing(chunks, listen))

    return layer


async def _blamed(impl: Impl, chunks: AsyncIterator[Chunk]) -> AsyncGenerator[Chunk, None]:
    """The chunks of a reply that a plugin made or wrapped; what they raise is the plugin's."""
    with impl:
        async with closing(chunks):
            async for chunk in chunks:
                yield chunk


def _named(impl: Impl, function: ChunkFilter) -> ChunkFilter:
    """The filter, naming its plugin when it raises."""

    def guarded(chunk: Chunk) -> Chunk | Iterable[Chunk] | None:
        with impl:
            result = function(chunk)
            # a generator runs only here, where what it raises is the plugin's
            return result if result is None or isinstance(result, Chunk) else tuple(result)

    return guarded


class Hooks:
    """Everything that active plugins implement, in the order of the settings; built once and never changed."""

    def __init__(
        self, pm: pluggy.PluginManager, meters: Callable[[str, str], HookMeters] = lambda _plugin, _hook: NoMeters()
    ) -> None:
        _check_names(pm)
        named = [(name, p) for name, p in pm.list_name_plugin() if isinstance(p, Plugin)]
        _check_unused(named)
        self.plugins: tuple[Plugin[Any], ...] = tuple(plugin for _, plugin in named)
        self.routes = implementations(pm, "register_routes", meters)
        self.verifiers = _registered(implementations(pm, "register_verifiers", meters), "verifier", registered_verifier)
        self.estimators = _registered(
            implementations(pm, "register_estimators", meters), "estimator", registered_estimator
        )
        self.extractors = _registered(
            implementations(pm, "register_extractors", meters), "extractor", registered_extractor, _harmless
        )
        self.lifespans = implementations(pm, "lifespan", meters)
        self.editors = implementations(pm, "on_request", meters)
        self.assessors = implementations(pm, "assess", meters)
        self.allocators = implementations(pm, "allocate", meters)
        self.around = implementations(pm, "around_completion", meters)
        self.filters = implementations(pm, "chunk_filter", meters)
        self.observers = implementations(pm, "on_done", meters)

    def pipeline(self, model: str, send: CallNext) -> Pipeline:
        """The part of the hooks that acts on `model`, composed around `send`."""
        return Pipeline(self, model, send)


class _Named(Protocol):
    """What was registered: it has a name and knows by whom."""

    @property
    def name(self) -> str: ...

    @property
    def plugin(self) -> str: ...


NamedT = TypeVar("NamedT", bound=_Named)


def _registered(
    impls: tuple[Impl, ...],
    kind: str,
    check: Callable[[Any, str], NamedT],
    guard: Callable[[Impl, NamedT], NamedT] = lambda _impl, made: made,
) -> Mapping[str, NamedT]:
    """What plugins offer, by name and in their order; raises `PluginError` naming plugin and fault."""
    found: dict[str, NamedT] = {}
    for impl in impls:

        def register(thing: Any, impl: Impl = impl) -> None:
            try:
                made = check(thing, impl.plugin)
            except ExtensionError as exc:
                told = getattr(thing, "name", None) or type(thing).__name__
                raise PluginError(f"plugin {impl.plugin!r}: {kind} {told!r}: {exc}") from exc
            if (other := found.get(made.name)) is not None:
                raise PluginError(
                    f"plugin {impl.plugin!r}: there is a {kind} {made.name!r} already, of plugin {other.plugin!r}"
                )
            found[made.name] = guard(impl, made)

        try:
            with impl:
                impl.fn(register)
        except HookError as exc:
            if isinstance(exc.__cause__, PluginError):
                raise exc.__cause__ from exc.__cause__.__cause__
            raise PluginError(f"plugin {impl.plugin!r} failed in {impl.hook}: {exc.__cause__!r}") from exc
    return MappingProxyType(found)


def _harmless(impl: Impl, made: RegisteredExtractor) -> RegisteredExtractor:
    """The extractor; where it fails it says nothing of the text, and the failure is its plugin's."""

    def extract(text: str) -> Extracted | None:
        try:
            with impl:
                return comparable(made.extract(text))
        except (HookError, RequestError, UpstreamError) as exc:
            log.warning("extractor %s of plugin %s failed: %r", made.name, impl.plugin, exc.__cause__ or exc)
            return None

    return replace(made, extract=extract)


def _check_names(pm: pluggy.PluginManager) -> None:
    """A `@hookimpl` that names no hook is a typing error of its author, not something to ignore."""
    try:
        pm.check_pending()
    except pluggy.PluginValidationError as exc:
        from predawn.proxy.problems import nearest

        hooks = [name for name in vars(Spec) if not name.startswith("_")]
        unknown = str(exc).partition("hook '")[2].partition("'")[0]
        raise PluginError(f"{exc}{nearest(unknown, hooks)}") from exc


def _check_unused(plugins: Iterable[tuple[str, Plugin[Any]]]) -> None:
    """What a plugin says it does not use must be a request hook: the others are called at start-up, or never."""
    for name, plugin in plugins:
        for hook in sorted(plugin.unused_hooks - REQUEST_HOOKS):
            from predawn.proxy.problems import unknown

            raise PluginError(f"plugin {name!r}: unused_hooks: {unknown('request hook', hook, REQUEST_HOOKS)}")


class _Observer:
    """One plugin's `on_done`, and how often it has failed in a row."""

    __slots__ = ("failures", "impl")

    def __init__(self, impl: Impl) -> None:
        self.impl = impl
        self.failures = 0


class Observers:
    """Runs `on_done` off the critical path: one task, a bounded queue, and a switch that turns a broken one off."""

    def __init__(self, impls: tuple[Impl, ...], tasks: Tasks, limit: int = OBSERVER_QUEUE) -> None:
        self._observers = tuple(_Observer(impl) for impl in impls)
        self._queue: deque[Exchange] = deque()
        self._limit = limit
        self._tasks = tasks
        self._task: asyncio.Task[None] | None = None
        self._wake: asyncio.Future[None] | None = None
        """What the task waits for while the queue is empty; `None` while it works."""
        self._empty = asyncio.Event()
        self._served: frozenset[str] | None = frozenset()
        """Aliases that somebody observes; `None` for all of them."""
        self._find_served()
        self.dropped = 0

    def _find_served(self) -> None:
        served: frozenset[str] | None = frozenset()
        for observer in self._observers:
            if observer.failures < FAILURES_UNTIL_OFF and served is not None:
                models = observer.impl.models
                served = served | models if models is not None else None
        self._served = served

    def serving(self, alias: str) -> bool:
        """True if anybody who is not switched off observes this alias."""
        return self._served is None or alias in self._served

    def done(self, exchange: Exchange) -> None:
        """Queue a finished exchange that somebody observes; beyond the limit the oldest is dropped and counted."""
        if self._served is not None and exchange.alias not in self._served:
            return
        if len(self._queue) >= self._limit:
            self._queue.popleft()
            self.dropped += 1
            for observer in self._observers:
                observer.impl.meters.failed("dropped")
        self._queue.append(exchange)
        if self._task is None:
            self._task = self._tasks.spawn(self._run(), "observers")
        elif self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while self._queue:
                exchange = self._queue.popleft()
                await self._observe(exchange)
            self._wake = loop.create_future()
            self._empty.set()
            await self._wake
            self._empty.clear()
            self._wake = None

    async def _observe(self, exchange: Exchange) -> None:
        began = perf_counter()
        for observer in self._observers:
            impl = observer.impl
            if observer.failures >= FAILURES_UNTIL_OFF or not impl.serves(exchange.alias):
                continue
            try:
                coro = impl.fn(exchange)
                try:
                    yielded = coro.send(None)
                except StopIteration:
                    pass
                else:
                    await rest(coro, yielded, impl.timeout_s)
            except (Exception, asyncio.CancelledError) as exc:
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise  # otherwise only what the plugin waited for was cancelled
                self._failed(observer, exchange, exc)
            else:
                observer.failures = 0
            ended = perf_counter()
            impl.took(ended - began)
            began = ended

    def _failed(self, observer: _Observer, exchange: Exchange, exc: BaseException) -> None:
        impl = observer.impl
        observer.failures += 1
        impl.meters.failed("timeout" if isinstance(exc, TimeoutError) else "error")
        log.error("plugin %s failed in on_done of %s", impl.plugin, exchange.id, exc_info=exc)
        if observer.failures == FAILURES_UNTIL_OFF:
            self._find_served()
            log.critical("plugin %s: on_done is off after %d failures in a row", impl.plugin, FAILURES_UNTIL_OFF)

    async def drain(self) -> None:
        """Wait until every queued exchange has been seen."""
        while self._queue or (self._task is not None and not self._task.done() and self._wake is None):
            self._empty.clear()
            await self._empty.wait()

    async def aclose(self) -> None:
        """See what is queued, then stop."""
        await self.drain()
        if self._task is not None:
            self._task.cancel()
