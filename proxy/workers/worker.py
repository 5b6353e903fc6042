"""A worker as its supervisor sees it: a process, what it said, and how long it has been silent."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

from predawn.proxy.workers.line import Line, hand_down

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from predawn.proxy.listening import Sockets

START_S: Final = 60
"""A worker may be silent for so long before its first word: it imports, perhaps from a slow disk."""
LAST_WORDS_S: Final = 3
"""Between the signal that makes a hung worker tell where it hangs, and the one that ends anything."""


class Worker:
    """One process of a worker.

    starting ──serving──> serving ──retired, or told by a signal──> leaving ──> gone
       └──────────────────────┴──────── dies, or hangs and is killed ──────────────┘
    """

    def __init__(self, number: int, process: subprocess.Popen[bytes], drains: Callable[[Worker], None]) -> None:
        loop = asyncio.get_running_loop()
        self.number = number
        self.process = process
        self.started_at = time.monotonic()
        self.silent_s = 0
        """Ticks of the supervisor without a word. Not clock time: a machine that was suspended hangs nobody."""
        self.is_leaving = False
        self.has_spoken = False
        self.served: asyncio.Future[bool] = loop.create_future()
        """True once it serves; False if it ended before."""
        self._drains = drains
        self._answer: asyncio.Future[str] | None = None
        self._line: Line

    @classmethod
    async def start(
        cls, command: Sequence[str], number: int, sockets: Sockets, raw: bytes, drains: Callable[[Worker], None]
    ) -> Self:
        """Start `command` for worker `number`, counted from 1, with these settings. Raises `OSError`.

        `drains` is called when it begins to leave without having been told by us.
        """
        ours, its = socket.socketpair()
        try:
            with its:
                # in a group of its own: a terminal's Ctrl-C would reach it twice, and a second signal ends at once
                process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own interpreter; a millisecond
                    [*command, "--worker", str(number)], stdin=its.fileno(), process_group=0
                )
            worker = cls(number, process, drains)
            hand_down(ours, sockets)
            ours.setblocking(False)
            worker._line = await Line.open(ours, worker._heard, lambda: None)
        except BaseException:
            ours.close()
            raise
        worker.tell("load", raw.decode("utf-8", "surrogateescape"))
        return worker

    def __repr__(self) -> str:
        return f"worker {self.number} (process {self.process.pid})"

    @property
    def is_serving(self) -> bool:
        return self.served.done() and self.served.result() and not self.is_leaving

    @property
    def age_s(self) -> float:
        return time.monotonic() - self.started_at

    def _heard(self, word: str, _text: str) -> None:
        self.silent_s, self.has_spoken = 0, True
        if word == "serving":
            if not self.served.done():
                self.served.set_result(True)
        elif word in ("prepared", "reloaded", "refused"):
            self._resolve(word)
        elif word == "draining" and not self.is_leaving:
            self.is_leaving = True
            self._drains(self)

    def tell(self, word: str, text: str = "") -> None:
        """Send an order."""
        self._line.say(word, text)

    async def ask(self, word: str, text: str = "") -> str:
        """Send an order and wait for the word that answers it; `gone` if the worker ends instead."""
        self._answer = asyncio.get_running_loop().create_future()
        self.tell(word, text)
        return await self._answer

    def _resolve(self, word: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(word)

    def retire(self) -> None:
        """Hand over to a successor that serves already."""
        self.is_leaving = True
        self.tell("retire")

    def signal(self, number: int) -> None:
        """Tell it to stop. Before its first word it has no handlers yet: SIGINT would print a traceback."""
        self.is_leaving = True
        self.send(number if self.has_spoken else signal.SIGTERM)

    def send(self, number: int) -> None:
        """Send a signal, if it is still there."""
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, number)  # not `send_signal`, which would reap it behind the supervisor's back

    def tick(self, hang_s: float) -> bool:
        """Count a second of silence, and end a worker that hangs; True when that is noticed."""
        self.silent_s += 1
        limit = int(hang_s if self.has_spoken else max(hang_s, START_S))
        if self.silent_s == limit + 1:
            self.send(signal.SIGABRT)
        elif self.silent_s > limit + LAST_WORDS_S:
            self.send(signal.SIGKILL)
        return self.silent_s == limit + 1

    def ended(self) -> bool:
        """True once the process is gone; whoever waits for a word of it is told."""
        if self.process.poll() is None:
            return False
        if not self.served.done():
            self.served.set_result(False)
        self._resolve("gone")
        self._line.close()
        return True
