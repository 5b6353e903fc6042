"""A whole server between a client and a scripted provider, each on real sockets of this machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from predawn.plugins.testing import predawn_server
from predawn.plugins.testing.server import RunningServer
from predawn.proxy.clock import Clock
from predawn.proxy.dispatch import Hooks
from predawn.proxy.resilience import Station
from predawn.proxy.upstreams.scripted import Answer, Script
from predawn.proxy.upstreams.scripted.server import ScriptedServer, scripted_server

CLIENT_KEY = "sk-client"
UPSTREAM_KEY = "sk-upstream"
QUICK: Mapping[str, Any] = {
    "timeouts": {"connect_s": 2, "first_byte_s": 5, "idle_s": 5, "total_s": 60},
    "retries": {"attempts": 1, "base_s": 0.001},
}
ALL_ROUTES = ["chat", "completions", "responses", "embeddings", "messages"]


@dataclass
class House:
    """What a test holds: the server, and the provider behind it."""

    running: RunningServer
    upstream: ScriptedServer
    others: Mapping[str, ScriptedServer] = field(default_factory=dict)

    @property
    def server(self) -> Any:
        return self.running.server

    @property
    def port(self) -> int:
        return int(self.server.port)

    @property
    def url(self) -> str:
        return self.running.url

    @property
    def base_url(self) -> str:
        return self.running.base_url

    @property
    def hooks(self) -> Hooks:
        hooks: Hooks = self.server.app.generation.hooks
        return hooks

    def plugin(self, kind: type) -> Any:
        return next(plugin for plugin in self.hooks.plugins if isinstance(plugin, kind))

    def station(self, name: str = "up") -> Station:
        station: Station = self.server.app.generation.stations[name]
        return station

    @property
    def is_idle(self) -> bool:
        generation = self.server.app.generation
        busy = sum(station.in_flight for station in generation.stations.values())
        return not busy and not generation.service.conversations

    async def idle(self) -> None:
        """Wait until no request is being served, here or upstream; fail if that takes long."""
        await until(lambda: self.is_idle and not self.upstream.counts.in_flight)

    async def idle_here(self) -> None:
        """Wait until no request is being served here; fail if that takes long."""
        await until(lambda: self.is_idle)

    async def answers(self) -> bool:
        """True if an ordinary request gets its ordinary answer now."""
        import aiohttp

        body = {"model": "m", "messages": [{"role": "user", "content": "still there?"}]}
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{self.base_url}/chat/completions", json=body) as reply:
                return reply.status == 200 and "choices" in await reply.json()


async def until(true: Callable[[], bool], *, seconds: float = 10) -> None:
    """Wait for something that no event tells of."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.002)


def upstream_settings(url: str, name: str = "up", **over: Any) -> dict[str, Any]:
    return {
        "name": name,
        "base_url": url,
        "api_key": UPSTREAM_KEY,
        "routes": ALL_ROUTES,
        **QUICK,
        **over,
    }


@asynccontextmanager
async def house(
    script: Script | Answer | str | None = None,
    *,
    upstream: Mapping[str, Any] | None = None,
    others: Mapping[str, Script | Answer | str] | None = None,
    models: Sequence[Mapping[str, Any]] | None = None,
    plugins: Sequence[Any] = (),
    server: Mapping[str, Any] | None = None,
    choose: Any = None,
    clock: Clock | None = None,
    behind: str | None = None,
    **settings: Any,
) -> AsyncIterator[House]:
    """Serve model `m` from a provider that plays `script`.

    `others` are further providers by name; `behind` is the address of another provider than the scripted one.
    """
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(scripted_server(script, choose=choose))
        more = {name: await stack.enter_async_context(scripted_server(said)) for name, said in (others or {}).items()}
        told = {
            "upstreams": [
                upstream_settings(behind or provider.base_url, **(upstream or {})),
                *(upstream_settings(other.base_url, name, **(upstream or {})) for name, other in more.items()),
            ],
            "models": models or [{"name": "m", "upstream": "up"}],
            "plugins": list(plugins),
            "server": {"drain_timeout_s": 1, "drain_grace_s": 0, **(server or {})},
            **settings,
        }
        running = await stack.enter_async_context(predawn_server(told, clock=clock))
        yield House(running, provider, more)


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class RawUpstream:
    """A provider that writes just what a test tells it to."""

    base_url: str = ""
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the test is over; whoever answers nothing waits for it."""


@asynccontextmanager
async def raw_upstream(serve: Serve | bytes, *, reads: bool = True) -> AsyncIterator[RawUpstream]:
    """Answer each request with `serve`, or with these bytes and the end of the connection.

    Without `reads` the request is left to `serve`, and hardly any of it is taken off the socket.
    """
    raw = RawUpstream()
    open_now: set[asyncio.StreamWriter] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw.connections += 1
        open_now.add(writer)
        try:
            if reads:
                raw.requests.append(await read_request(reader))
            if isinstance(serve, bytes):
                writer.write(serve)
                await writer.drain()
            else:
                await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            open_now.discard(writer)

    listening = await asyncio.start_server(connected, "127.0.0.1", 0, limit=1 << 16 if reads else 1000)
    port = listening.sockets[0].getsockname()[1]
    raw.base_url = f"http://127.0.0.1:{port}/v1"
    try:
        yield raw
    finally:
        raw.over.set()
        listening.close()
        for writer in tuple(open_now):
            writer.transport.abort()
        await until(lambda: not open_now)


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """One request: its head, and a body of the length that it tells."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return head + await reader.readexactly(length)
