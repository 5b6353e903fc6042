"""The provider behind a lane: it notes every byte that it is sent, and answers with just the bytes of a play.

A client names the play of a request in its header `x-play`; plays are in `plays.py`. Requests are read by rules as
strict as can be: what another reader might take for something else is junk, and junk is noted.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

from predawn.proxy.tasks import Tasks

_LINE = re.compile(rb"[A-Z]+ /[\x21-\x7e]* HTTP/1\.1")
_HEAD = re.compile(
    rb"([A-Z]+) (/[\x21-\x7e]*) HTTP/1\.1\r\n((?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+: ?[^\x00-\x08\x0a-\x1f\x7f]*\r\n)*)\r\n"
)
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,8})\r\n")


class Step(Enum):
    """What a provider does beside writing."""

    HOLD = "hold"
    """Wait until the test says `go`."""
    CLOSE = "close"
    ABORT = "abort"
    EARLY = "early"
    """As the first step: answer once the head is there, and read no more."""


Play: TypeAlias = Sequence[bytes | Step]


@dataclass(frozen=True)
class Received:
    """One request as it came."""

    line: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def value(self, name: str) -> str | None:
        return next(iter(self.values(name)), None)


@dataclass
class Scene:
    """The plays there are; several for a name are played one after another, the last one again and again."""

    plays: Mapping[str, Sequence[Play]]
    usual: str


class Recorder:
    """What a provider was asked, and where it stands."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.port = 0
        self.requests: list[Received] = []
        self.junk: list[bytes] = []
        """What came and was no request."""
        self.open: set[Peer] = set()
        self.left = 0
        """Requests whose asker went away before the play was over."""
        self.bytes_in = self.bytes_out = 0
        self.tasks = Tasks()
        self._played: dict[str, int] = {}
        self._go = asyncio.Event()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def playing(self) -> int:
        return sum(peer.is_playing for peer in self.open)

    def forget(self) -> None:
        """Begin a new story: nothing has come, and nobody says go."""
        self.requests.clear()
        self.junk.clear()
        self._played.clear()
        self._go = asyncio.Event()
        self.left = 0

    def go(self) -> None:
        """Let every play that holds go on."""
        self._go.set()
        self._go = asyncio.Event()

    async def held(self) -> None:
        await self._go.wait()

    def is_early(self, name: str | None) -> bool:
        plays = self.scene.plays.get(name or "")
        return plays is not None and plays[0][:1] == [Step.EARLY]

    def play_of(self, name: str | None) -> Play:
        plays = self.scene.plays.get(name or "") or self.scene.plays[self.scene.usual]
        number = self._played[name or ""] = self._played.get(name or "", 0) + 1
        return plays[min(number, len(plays)) - 1]


class Peer(asyncio.Protocol):
    """One connection that a lane made."""

    transport: asyncio.Transport

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._buffer = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()

    @property
    def is_playing(self) -> bool:
        return self._task is not None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._recorder.open.add(self)

    def data_received(self, data: bytes) -> None:
        self._recorder.bytes_in += len(data)
        self._buffer += data
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._recorder.open.discard(self)
        first, end, _ = self._buffer.partition(b"\r\n")
        if end and _LINE.fullmatch(first) is None:
            self._recorder.junk.append(bytes(self._buffer))
        if self._task is not None:
            self._recorder.left += 1
            self._task.cancel()
            self._task = None

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def _next(self) -> None:
        if self._task is not None or not self._buffer:
            return
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        found = _HEAD.fullmatch(self._buffer[: end + 4])
        if found is None:
            self._junk()
            return
        headers = _headers(found[3])
        body = self._body(headers, end + 4)
        name = next((value for key, value in headers if key == "x-play"), None)
        if body is None:
            if self.transport.is_closing() or not self._recorder.is_early(name):
                return
            self.transport.pause_reading()
            self._buffer.clear()
            body = b"(unread)"
        line = f"{found[1].decode()} {found[2].decode()}"
        self._recorder.requests.append(Received(line, headers, body))
        self._task = self._recorder.tasks.spawn(self._perform(self._recorder.play_of(name)), "play")

    def _body(self, headers: tuple[tuple[str, str], ...], start: int) -> bytes | None:
        """The body, taken off the buffer with its head; `None` while it is not whole."""
        lengths = [value for key, value in headers if key == "content-length"]
        codings = [value for key, value in headers if key == "transfer-encoding"]
        if codings:
            if lengths or codings != ["chunked"]:
                self._junk()
                return None
            return self._chunks(start)
        if len(lengths) > 1 or not all(re.fullmatch("[0-9]{1,10}", length) for length in lengths):
            self._junk()
            return None
        end = start + int(lengths[0]) if lengths else start
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[start:end])
        del self._buffer[:end]
        return body

    def _chunks(self, at: int) -> bytes | None:
        body = bytearray()
        while (found := _CHUNK.match(self._buffer, at)) is not None:
            size = int(found[1], 16)
            start = found.end()
            if len(self._buffer) < start + size + 2:
                return None
            if self._buffer[start + size : start + size + 2] != b"\r\n":
                self._junk()
                return None
            if not size:
                del self._buffer[: start + 2]
                return bytes(body)
            body += self._buffer[start : start + size]
            at = start + size + 2
        return None

    def _junk(self) -> None:
        self._recorder.junk.append(bytes(self._buffer))
        self._buffer.clear()
        self.transport.abort()

    async def _perform(self, play: Play) -> None:
        for step in play:
            if isinstance(step, bytes):
                self.transport.write(step)
                self._recorder.bytes_out += len(step)
                await turns(3)  # so that it is read by itself
                await self._may_write.wait()
            elif step is Step.HOLD:
                await self._recorder.held()
            elif step is not Step.EARLY:
                self._task = None
                if step is Step.CLOSE:
                    self.transport.close()
                else:
                    self.transport.abort()
                return
        self._task = None
        self._next()


def _headers(lines: bytes) -> tuple[tuple[str, str], ...]:
    pairs = [line.partition(b":") for line in lines.split(b"\r\n")[:-1]]
    return tuple((name.decode().lower(), value.strip(b" \t").decode("latin-1")) for name, _, value in pairs)


async def turns(count: int) -> None:
    """Let everybody else have so many turns."""
    for _ in range(count):
        await asyncio.sleep(0)


@asynccontextmanager
async def recording(scene: Scene) -> AsyncIterator[Recorder]:
    """A provider on a free port, until the block ends."""
    recorder = Recorder(scene)
    server = await asyncio.get_running_loop().create_server(lambda: Peer(recorder), "127.0.0.1", 0, backlog=1024)
    recorder.port = server.sockets[0].getsockname()[1]
    try:
        yield recorder
    finally:
        server.close()
        for peer in tuple(recorder.open):
            peer.transport.abort()
        await recorder.tasks.cancel()
