"""Catches what a server would forgive or hide: exceptions of plugins, and uses of the hooks that go wrong silently."""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncIterator, Callable
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from predawn.proxy.dispatch import HookError
from predawn.proxy.exchange import ByteSource, Chunk, Exchange, Reply, RequestError
from predawn.proxy.upstreams.base import Upstream, UpstreamError, UpstreamRequest

if TYPE_CHECKING:
    import pluggy

_decode = msgspec.json.Decoder().decode
Split: TypeAlias = Callable[[ByteSource], AsyncIterator[Chunk]]
WATCHED = ("on_request", "assess", "allocate", "around_completion", "on_done")


class PluginMisuseError(AssertionError):
    """A plugin does something that has no effect, or breaks the promise that untouched bytes stay untouched."""


class Watch:
    """What the plugins of one workbench did wrong, in the order in which it happened."""

    def __init__(self, *, blocking_s: float | None) -> None:
        self.found: list[BaseException] = []
        self._blocking_s = blocking_s
        self._told: set[str] = set()

    def over(self, pm: pluggy.PluginManager) -> pluggy.PluginManager:
        """Wrap every hook of every plugin. A hook of the wrong kind is left alone: start-up refuses it better."""
        for hook in WATCHED:
            for impl in getattr(pm.hook, hook).get_hookimpls():
                if inspect.iscoroutinefunction(impl.function):
                    _replace(impl, self._watched(impl.plugin_name, hook, impl.function))
        for impl in pm.hook.chunk_filter.get_hookimpls():
            if not inspect.iscoroutinefunction(impl.function):
                _replace(impl, self._watched_factory(impl.plugin_name, impl.function))
        return pm

    def misuse(self, plugin: str, message: str) -> None:
        """Note a misuse, once."""
        if message not in self._told:
            self._told.add(message)
            self.found.append(PluginMisuseError(f"plugin {plugin!r}: {message}"))

    def _watched(self, plugin: str, hook: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        async def watched(exchange: Exchange, *rest: Any) -> Any:
            with Blame(self, plugin, hook):
                result = await _timed(function(exchange, *rest), partial(self._took, plugin, hook))
            self.check_request(plugin, exchange)
            return self._checked_reply(plugin, result) if hook == "around_completion" else result

        return watched

    def _checked_reply(self, plugin: str, reply: Any) -> Any:
        if not isinstance(reply, Reply):
            self.misuse(plugin, f"around_completion must return a Reply, it returned {type(reply).__name__}")
        elif not reply.is_raw:
            return reply.with_chunks(self._blamed(plugin, reply.chunks))
        return reply

    async def _blamed(self, plugin: str, chunks: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
        """What a plugin's own generator raises comes after the hook has returned."""
        with Blame(self, plugin, "the chunks of around_completion"):
            async for chunk in chunks:
                yield chunk

    def _watched_factory(self, plugin: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def watched(exchange: Exchange) -> Any:
            with Blame(self, plugin, "chunk_filter"):
                made = function(exchange)
            if made is None:
                return None
            if inspect.iscoroutinefunction(made):
                self.misuse(plugin, "chunk_filter returned an async function; a filter is a plain def")
                return None
            if not callable(made):
                message = f"chunk_filter must return a function or None, it returned {type(made).__name__}"
                self.misuse(plugin, message)
                return None
            return partial(self._filter, plugin, made)

        return watched

    def _filter(self, plugin: str, function: Callable[[Chunk], Any], chunk: Chunk) -> Any:
        began = time.perf_counter()
        with Blame(self, plugin, "chunk_filter"):
            result = function(chunk)
            items = None if result is None or isinstance(result, Chunk) else list(result)
        self._took(plugin, "chunk_filter", time.perf_counter() - began)
        self.check_chunk(plugin, chunk)
        if items is None:
            return result
        chunks = [item for item in items if isinstance(item, Chunk)]
        if len(chunks) < len(items):
            kind = next(type(item).__name__ for item in items if not isinstance(item, Chunk))
            self.misuse(plugin, f"a filter gives chunks; it gave {kind}, make it a Chunk.of(...)")
        return chunks

    def _took(self, plugin: str, hook: str, seconds: float) -> None:
        if self._blocking_s is not None and seconds > self._blocking_s:
            self.misuse(
                plugin,
                f"{hook} kept the event loop busy for {seconds:.2f} s, and every other request with it; "
                "await something, or use asyncio.to_thread",
            )

    def check_request(self, plugin: str, exchange: Exchange) -> None:
        """A request changed in place without `edit()` is never sent."""
        if exchange.edited:
            return
        pristine = Exchange(exchange.body)
        try:
            changed = pristine.decoded() != exchange.decoded()
        except RequestError:
            return
        if changed:
            self.misuse(plugin, "exchange.request was changed in place, which is not sent; change exchange.edit()")

    def check_chunk(self, plugin: str, chunk: Chunk) -> None:
        """A chunk changed in place still leaves with its old bytes."""
        if chunk._data is not None and chunk._raw is not None:  # noqa: SLF001 - looking must not decode
            pristine = type(chunk)(chunk.raw)
            if chunk.origin is None and (pristine.data or {}) != chunk._data:  # noqa: SLF001
                self.misuse(plugin, "chunk.data was changed in place, which is not sent; return chunk.with_data(...)")


def _replace(impl: pluggy.HookImpl, function: Callable[..., Any]) -> None:
    setattr(impl, "function", function)  # noqa: B010 - final for readers, replaced here on purpose


class Blame:
    """Notes what is raised inside, unless it is an answer of the plugin's own or somebody else's failure."""

    def __init__(self, watch: Watch, plugin: str, hook: str) -> None:
        self._watch = watch
        self._where = f"raised by plugin {plugin!r} in {hook}"

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: object) -> None:
        if not isinstance(exc, Exception) or isinstance(exc, RequestError | UpstreamError | HookError):
            return
        if all(exc is not known for known in self._watch.found):  # an outer plugin sees it again
            exc.add_note(self._where)
            self._watch.found.append(exc)


async def _timed(coro: Any, took: Callable[[float], None]) -> Any:
    """Await a coroutine and tell how long each of its steps held the event loop."""
    return await _Timed(coro, took)


class _Timed:
    def __init__(self, coro: Any, took: Callable[[float], None]) -> None:
        self._coro = coro
        self._took = took

    def __await__(self) -> Any:
        steps = self._coro.__await__()
        send: Callable[[], Any] = partial(next, steps)
        while True:
            began = time.perf_counter()
            try:
                waited_for = send()
            except StopIteration as stop:
                return stop.value
            finally:
                self._took(time.perf_counter() - began)
            try:
                sent = yield waited_for
            except GeneratorExit:
                steps.close()
                raise
            except BaseException as exc:  # noqa: BLE001 - handed to the coroutine, which decides
                send = partial(steps.throw, exc)
            else:
                send = partial(steps.send, sent)


class WatchedUpstream:
    """An upstream whose chunks are looked at again when all is over."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.name = upstream.name
        self.routes = upstream.routes
        self.chunks: list[Chunk] = []

    async def open(self) -> None:
        await self.upstream.open()

    async def send(self, request: UpstreamRequest) -> Reply:
        reply = await self.upstream.send(request)
        if reply.split is not None:
            reply.split = self._kept(reply.split)
        return reply

    def _kept(
        self, split: Callable[[ByteSource], AsyncIterator[Chunk]]
    ) -> Callable[[ByteSource], AsyncIterator[Chunk]]:
        async def kept(source: ByteSource) -> AsyncIterator[Chunk]:
            async for chunk in split(source):
                self.chunks.append(chunk)
                yield chunk

        return kept

    async def models(self) -> list[str]:
        return await self.upstream.models()

    async def aclose(self) -> None:
        await self.upstream.aclose()
