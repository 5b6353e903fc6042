"""Two servers that differ in one setting, each before its own provider, and a story told to both."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeAlias

from tests.acceptance.house import until
from tests.lanes.client import Client, connected
from tests.lanes.plays import SCENE
from tests.lanes.seen import Books, Seen, difference, forget_rows
from tests.lanes.upstream import Recorder, Scene, recording, turns

from predawn.plugins.testing import ManualClock, predawn_server
from predawn.proxy.dispatch import Observers
from predawn.proxy.keys import Digester, Key, create_key, revoke_key
from predawn.proxy.secret import find_or_make_secret
from predawn.proxy.server import Server
from predawn.proxy.settings import Settings
from predawn.proxy.tables import keys

QUICK: Mapping[str, Any] = {
    "timeouts": {"connect_s": 5, "first_byte_s": 20, "idle_s": 20, "total_s": 60},
    "retries": {"attempts": 1, "base_s": 0},
    "breaker": {"failures": 1_000_000},
    "routes": ["chat", "completions", "responses", "embeddings", "messages"],
    "api_key": "sk-upstream",
}
QUIET_S = 0.0005
SILENT_S = 0.005
PATIENT_S = 0.1
"""Pauses in which nothing happens, to be sure that nothing will: usually, where nothing came, and where lanes differ."""


class Lane:
    """A running server and the provider behind it."""

    def __init__(self, name: str, server: Server, provider: Recorder) -> None:
        self.name = name
        self.server = server
        self.provider = provider
        self.tls: ssl.SSLContext | None = None
        """What clients trust it by, if it speaks TLS."""

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def clock(self) -> ManualClock:
        clock = self.server._shared.clock
        assert isinstance(clock, ManualClock)
        return clock

    async def add_key(self, presented: str, **limits: Any) -> None:
        """Make a key that is presented by these words."""
        access = self.server._shared.access
        store = await access._open_store()
        digester = Digester(find_or_make_secret(self.server.settings))
        draft = Key(id="", name=presented, created_at=self.clock.now(), **limits)
        key, _ = await create_key(store, digester, draft)
        own = {"id": f"key_{presented}", "digest": digester(presented).hex()}
        async with store.begin() as connection:
            await connection.execute(keys.update().where(keys.c.id == key.id).values(**own))
        await access.reload()

    async def revoke(self, presented: str) -> None:
        access = self.server._shared.access
        assert await revoke_key(await access._open_store(), f"key_{presented}", self.clock.now())
        await access.reload()

    @property
    def plain_settings(self) -> dict[str, Any]:
        """The settings in force as a file would have them."""
        return plain(self.server.app.generation.settings)

    async def reload(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Serve with changed settings from now on."""
        made = Settings.model_validate(change(self.plain_settings))
        assert await self.server.reload(lambda: made)

    @property
    def is_busy(self) -> bool:
        """True while a request is on its way through it."""
        generations = self.server.app.generations
        return any(
            generation.service.is_busy
            or any(station.in_flight for station in generation.stations.values())
            or is_observing(generation.service.tools.observers)
            for generation in generations
        )

    async def held(self, client: Client, requests: int = 1) -> None:
        """Wait until the provider plays for so many requests, and nothing more happens."""
        await until(lambda: self.provider.playing >= requests)
        await self.quiet(client, busy=True)

    def hurry(self) -> bool:
        """Let the fast lane lose its patience with requests that it waits for, as it does after two seconds."""
        waiting = [door for door in self.server.doors.open if door._held]
        for door in waiting:
            door.look_after(perf_counter() + 3)
        return bool(waiting)

    async def quiet(self, client: Client | None = None, *, seconds: float = QUIET_S, busy: bool = False) -> None:
        """Wait until nothing more happens: no byte moves, and (unless `busy`) nobody is being served."""

        def state() -> tuple[object, ...]:
            provider = self.provider
            got = (len(client.received), client.is_closed) if client is not None else ()
            return (
                provider.bytes_in,
                provider.bytes_out,
                len(provider.requests),
                provider.playing,
                len(provider.junk),
                *got,
            )

        async with asyncio.timeout(30):
            before = None
            while before != state() or (self.is_busy and not busy):
                before = state()
                await turns(8)
                await asyncio.sleep(seconds)
                await turns(8)


def is_observing(observers: Observers) -> bool:
    """True while an exchange waits for its observers."""
    wake = observers._wake
    return bool(observers._queue) or (observers._task is not None and (wake is None or wake.done()))


Story: TypeAlias = "Callable[[Lane, Client], Awaitable[None]]"


class Lanes:
    """The fast lane's server and the full lane's."""

    def __init__(self, fast: Lane, full: Lane) -> None:
        self.fast = fast
        self.full = full

    @property
    def each(self) -> tuple[Lane, Lane]:
        return self.fast, self.full

    async def say(self, *segments: bytes) -> Seen:
        """Send these segments to both on a connection of its own; what came of it, which must be the same."""

        async def story(lane: Lane, client: Client) -> None:
            await client.send(*segments)

        return await self.tell(story)

    async def tell(self, story: Story, *, again: bool = True) -> Seen:
        """Let both live through the same story, on a connection of its own; fail if they can be told apart.

        A difference must show `again` where all have more time, or it is one of timing.
        """
        fast, full = await self._live(story, QUIET_S)
        if again and difference(fast, full):
            fast, full = await self._live(story, PATIENT_S)
        told = difference(fast, full)

        assert not told, f"the lanes differ (- fast, + full):\n{told}"
        return fast

    async def _live(self, story: Story, quiet_s: float) -> tuple[Seen, Seen]:
        lived = [_live(lane, story, quiet_s) for lane in self.each]
        fast, full = await asyncio.gather(*lived)
        return fast, full


async def _live(lane: Lane, story: Story, quiet_s: float) -> Seen:
    lane.provider.forget()
    forget_rows(lane.server)
    before = Books.of(lane.server)
    async with connected(lane.port, lane.tls) as client:
        await story(lane, client)
        if not client.transport.is_closing():
            await lane.quiet(client, seconds=quiet_s)
            if not client.received:  # silence is no answer: what was sent may not have been read yet
                await lane.quiet(client, seconds=max(quiet_s, SILENT_S))
            if lane.hurry():
                await lane.quiet(client, seconds=quiet_s)
        is_open = not client.is_closed
        received = bytes(client.received)
    lane.provider.go()
    await lane.quiet(seconds=quiet_s)
    return Seen.of(lane.server, lane.provider, received, before, is_open=is_open)


def plain(settings: Settings) -> dict[str, Any]:
    """Settings as a file would have them, secrets in plain."""

    def shown(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shown(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [shown(item) for item in value]
        return value.get_secret_value() if hasattr(value, "get_secret_value") else value

    found: dict[str, Any] = shown(settings.model_dump(exclude_unset=True))
    return found


@dataclass(frozen=True)
class Stage:
    """What a pair of lanes is built from."""

    models: Sequence[Mapping[str, Any]]
    upstreams: Sequence[Mapping[str, Any]]


def usual_stage(url: str) -> Stage:
    """A model for each way in which upstreams and aliases can be set."""
    ups = [
        {"name": "up"},
        {"name": "hasty", "timeouts": {"connect_s": 1, "first_byte_s": 0.25, "idle_s": 0.25}},
        {"name": "thrice", "retries": {"attempts": 3, "base_s": 0}},
        {"name": "second"},
        {"name": "counting", "stream_usage": True},
        {"name": "unmarked", "done_marker": False},
        {"name": "dressed", "headers": {"X-Own": "1", "X-Over": "ours", "baggage": "ours"}, "auth": "x-api-key"},
        {"name": "few", "routes": ["chat"], "relay": ["/files"]},
        {"name": "narrow", "max_connections": 1},
        {"name": "nowhere", "base_url": "http://127.0.0.1:1/v1"},
    ]
    models = [
        {"name": "m", "upstream": "up"},
        {"name": "alias", "upstream": "up", "model": "other-name"},
        {"name": "clamped", "upstream": "up", "max_output_tokens": 16},
        {"name": "hasty", "upstream": "hasty"},
        {"name": "thrice", "upstream": "thrice"},
        {"name": "falling", "upstream": "up", "fallbacks": ["backup"]},
        {"name": "backup", "upstream": "second", "model": "backup-model"},
        {"name": "counting", "upstream": "counting"},
        {"name": "unmarked", "upstream": "unmarked"},
        {"name": "dressed", "upstream": "dressed"},
        {"name": "few", "upstream": "few"},
        {"name": "narrow", "upstream": "narrow"},
        {"name": "nowhere", "upstream": "nowhere"},
        {"name": "falling from nowhere", "upstream": "nowhere", "fallbacks": ["backup"]},
        {"name": "priced", "upstream": "up", "price": {"input_usd_per_mtok": 1000, "output_usd_per_mtok": 5000}},
        {"name": "umlaut-ä", "upstream": "up"},
    ]
    return Stage(models, [{"base_url": url, **QUICK, **up} for up in ups])


@asynccontextmanager
async def lanes(
    *,
    scene: Scene = SCENE,
    server: Mapping[str, Any] | None = None,
    models: Sequence[Mapping[str, Any]] | None = None,
    **settings: Any,
) -> AsyncIterator[Lanes]:
    """Both servers, until the block ends."""
    async with AsyncExitStack() as stack:
        made = []
        for name in ("fast", "full"):
            provider = await stack.enter_async_context(recording(scene))
            stage = usual_stage(provider.base_url)
            own = {"drain_timeout_s": 1, "drain_grace_s": 0, "body_limit_mb": 2, **(server or {})}
            own["fast_lane"] = name == "fast"
            told = {"upstreams": stage.upstreams, "models": models or stage.models, **settings, "server": own}
            running = await stack.enter_async_context(predawn_server(told, clock=ManualClock()))
            made.append(Lane(name, running.server, provider))
        yield Lanes(*made)
