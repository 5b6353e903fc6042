"""The line between a supervisor and a worker: words with a text, one JSON list to a line, over a socket pair.

down: load (the settings file), commit, abort, failed (a reload that came to nothing), retire
up:   alive, serving, prepared, reloaded, refused, draining
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Final, TypeAlias, cast

from predawn.proxy.listening import Sockets

Hear: TypeAlias = "Callable[[str, str], None]"
MOST_SOCKETS: Final = 64


class Line(asyncio.Protocol):
    """One end."""

    def __init__(self, hear: Hear, ended: Callable[[], None]) -> None:
        self._hear = hear
        self._ended = ended
        self._held = b""
        self._transport: asyncio.WriteTransport | None = None

    @classmethod
    async def open(cls, end: socket.socket, hear: Hear, ended: Callable[[], None]) -> Line:
        """Hear what comes from now on; `ended` is called when the other side is gone."""
        loop = asyncio.get_running_loop()
        _, line = await loop.create_unix_connection(lambda: cls(hear, ended), sock=end)
        return line

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        *lines, self._held = (self._held + data).split(b"\n")
        for one in lines:
            word, text = json.loads(one)
            self._hear(word, text)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._transport = None
        self._ended()

    def say(self, word: str, text: str = "") -> None:
        """Send; nobody hears it once the other side is gone."""
        if self._transport is not None:
            self._transport.write(_encoded(word, text))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _encoded(word: str, text: str) -> bytes:
    return json.dumps([word, text]).encode() + b"\n"


def hand_down(end: socket.socket, sockets: Sockets) -> None:
    """The first thing a supervisor sends: what the worker listens on. Small, so it does not wait for the worker."""
    counts = f"{len(sockets.api)} {len(sockets.admin)}"
    fds = [one.fileno() for one in (*sockets.api, *sockets.admin)]
    socket.send_fds(end, [_encoded("sockets", counts)], fds)


def take_over(end: socket.socket) -> Sockets:
    """What the supervisor handed down; waits for it. Raises `EOFError` where nobody is at the other end."""
    held, fds, _, _ = socket.recv_fds(end, 1, MOST_SOCKETS)
    if not held:
        raise EOFError("the supervisor is gone")
    taken = [socket.socket(fileno=fd) for fd in fds]
    _, text = json.loads(held + _line(end))
    api, admin = map(int, text.split())
    assert len(taken) == api + admin, "every socket comes with the first byte"
    return Sockets(taken[:api], taken[api:])


def first_text(end: socket.socket) -> str:
    """The text of the next word; waits for it. Raises `EOFError` where nobody is at the other end."""
    _, text = json.loads(_line(end))
    return str(text)


def _line(end: socket.socket) -> bytes:
    """Up to the end of the line and no further: what follows is for the event loop."""
    found = b""
    while True:
        ahead = end.recv(65536, socket.MSG_PEEK)
        if not ahead:
            raise EOFError("the supervisor is gone")
        size = ahead.find(b"\n") + 1
        found += end.recv(size or len(ahead))
        if size:
            return found
