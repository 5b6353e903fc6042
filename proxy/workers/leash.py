"""A worker's end of the line: sockets and settings from the supervisor, a sign of life every second, and its orders."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from predawn.proxy.problems import Problem, SettingsError
from predawn.proxy.workers.line import Line, first_text, take_over

if TYPE_CHECKING:
    from predawn.proxy.listening import Sockets
    from predawn.proxy.settings import Settings

BEAT_S: Final = 1.0
Agree: TypeAlias = "Callable[[], Awaitable[None]]"
log = logging.getLogger("predawn.workers")


class Serving(Protocol):
    """What a leash asks of the server."""

    settings: Settings

    @property
    def port(self) -> int: ...
    @property
    def admin_port(self) -> int: ...
    def hand_over(self) -> None: ...
    def count_failed_reload(self) -> None: ...


class Leash:
    """Taken from standard input before the event loop runs."""

    def __init__(self, end: socket.socket) -> None:
        """Wait for what the supervisor hands down. Raises `EOFError` if it is gone."""
        self.sockets: Sockets = take_over(end)
        self.raw = _bytes(first_text(end))
        """The settings file as the supervisor read it; empty where there is none."""
        self._end = end
        self._line: Line
        self._server: Serving | None = None
        self._stop: Callable[[float], None]
        self._reload: Callable[[Agree], asyncio.Task[bool]]
        self._verdict: asyncio.Future[bool] | None = None
        self._in_force = self.raw
        self._is_retired = False

    @classmethod
    def from_stdin(cls) -> Leash:
        """Raises `EOFError` or `OSError` where standard input is no line of a supervisor."""
        faulthandler.enable()  # a worker that hangs is ended by SIGABRT: its last words tell where
        end = socket.socket(fileno=os.dup(0))
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a device; programs that are started here inherit it
            os.dup2(nothing.fileno(), 0)
        end.set_inheritable(False)
        end.setblocking(True)
        return cls(end)

    async def attach(self, stop: Callable[[float], None]) -> None:
        """Give signs of life; call `stop` with a grace period when retired, or when the supervisor is gone."""
        self._stop = stop
        self._end.setblocking(False)
        self._line = await Line.open(self._end, self._heard, self._left_alone)
        self._beat()

    def _beat(self) -> None:
        self._line.say("alive")
        asyncio.get_running_loop().call_later(BEAT_S, self._beat)

    def serve(self, server: Serving, reload: Callable[[Agree], asyncio.Task[bool]]) -> None:
        """Requests are welcome; follow orders from now on."""
        self._server, self._reload = server, reload
        self._line.say("serving", f"{server.port} {server.admin_port}")
        if self._is_retired:
            self._retire(server)

    def leaving(self) -> None:
        """Tell that this worker drains, whoever asked for it."""
        self._line.say("draining")

    def _left_alone(self) -> None:
        log.warning("the supervisor is gone")
        self._decide(agreed=False)
        self._stop(self._grace_s)

    @property
    def _grace_s(self) -> float:
        return self._server.settings.server.drain_grace_s if self._server is not None else 0.0

    def _heard(self, word: str, text: str) -> None:
        server = self._server
        if word == "retire":
            self._is_retired = True
            if server is not None:
                self._retire(server)
        elif server is None:
            return
        elif word == "load":
            self.raw = _bytes(text)
            self._reload(self._agree).add_done_callback(self._reloaded)
        elif word in ("commit", "abort"):
            self._decide(agreed=word == "commit")
        elif word == "failed":
            server.count_failed_reload()

    def _retire(self, server: Serving) -> None:
        server.hand_over()
        self._stop(self._grace_s)

    # -- a reload that all workers agree on

    async def _agree(self) -> None:
        self._verdict = asyncio.get_running_loop().create_future()
        self._line.say("prepared")
        if not await self._verdict:
            raise SettingsError("the supervisor", [Problem((), "another worker cannot serve with these settings")])

    def _decide(self, *, agreed: bool) -> None:
        if self._verdict is not None and not self._verdict.done():
            self._verdict.set_result(agreed)

    def _reloaded(self, task: asyncio.Task[bool]) -> None:
        done = not task.cancelled() and task.exception() is None and task.result()
        if done:
            self._in_force = self.raw
        self.raw = self._in_force
        self._line.say("reloaded" if done else "refused")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
