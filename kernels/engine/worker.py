"""The engine's process: `python -m predawn.kernels.engine.worker`. Orders come on standard input, news go to standard
output; it ends when its input does, so that it never outlives whoever started it.

Three things happen side by side: a thread reads orders and makes prompts of them (text work, which mostly leaves the
interpreter free), and the main thread alternates between what has come in and steps of the engine.
"""

from __future__ import annotations

import faulthandler
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import BinaryIO, TypeAlias

from predawn.kernels.engine.desk import Desk
from predawn.kernels.engine.protocol import (
    Ask,
    Cancel,
    Failed,
    Frames,
    Loading,
    News,
    Open,
    Order,
    Ping,
    Pong,
    Ready,
    Refused,
    Stats,
    Taken,
    frame,
    orders,
)
from predawn.kernels.engine.session import Call, Session

READ_BYTES = 1 << 18
STATS_EVERY_S = 0.25
NICENESS = 5
"""The proxy beside it goes first: a token that is late by a scheduler's slice harms less than a late event loop."""

Tell: TypeAlias = Callable[[str], None]
Load: TypeAlias = Callable[[Open, Tell], tuple[Desk, Ready]]
Prepared: TypeAlias = tuple[Session, list[Call]] | Refused | Cancel | Ping


class LoadError(Exception):
    """The model cannot be loaded; the message says why, and what to do about it."""


class Mouth:
    """The way to the proxy, for any thread. What the process itself prints goes to standard error."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._turn = threading.Lock()

    def say(self, *news: News) -> None:
        """Send news at once; end the process if nobody listens."""
        if not news:
            return
        try:
            with self._turn:
                self._out.write(frame(*news))
                self._out.flush()
        except BrokenPipeError:
            os._exit(0)


class Ear(threading.Thread):
    """Reads orders, and prepares requests once there is a desk. Its end is the process's end."""

    def __init__(self, descriptor: int, mouth: Mouth) -> None:
        super().__init__(name="orders", daemon=True)
        self._descriptor = descriptor
        self._mouth = mouth
        self.first: queue.SimpleQueue[Open] = queue.SimpleQueue()
        self.prepared: queue.SimpleQueue[Prepared] = queue.SimpleQueue()
        self.desk: Desk | None = None
        """Set before `Ready` is said, and requests come after that."""

    def run(self) -> None:
        try:
            self._listen()
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(0)  # also in the middle of a step, or while a model is loaded

    def _listen(self) -> None:
        frames = Frames()
        while data := os.read(self._descriptor, READ_BYTES):
            for order in orders(frames.feed(data)):
                self._hear(order)

    def _hear(self, order: Order) -> None:
        if isinstance(order, Open):
            self.first.put(order)
        elif isinstance(order, Ask):
            assert self.desk is not None
            self._mouth.say(Taken(order.id))
            self.prepared.put(self.desk.prepare(order))
        else:
            self.prepared.put(order)


class Pulse:
    """Decides when to tell how busy the engine is: now and then while it works, and whenever it comes to rest."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: Stats | None = None
        self._told_at = 0.0

    def beat(self, desk: Desk) -> list[News]:
        """The stats, if they are to be told now."""
        now = self._clock()
        if not desk.idle and now - self._told_at < STATS_EVERY_S:
            return []
        stats = desk.stats()
        if stats == self._last:
            return []
        self._last, self._told_at = stats, now
        return [stats]


def serve(desk: Desk, prepared: queue.SimpleQueue[Prepared], mouth: Mouth) -> None:
    """Work for ever."""
    pulse = Pulse()
    mouth.say(*pulse.beat(desk))
    while True:
        news = take(desk, prepared.get()) if desk.idle else []
        while not prepared.empty():
            news += take(desk, prepared.get())
        news += desk.step()
        mouth.say(*news, *pulse.beat(desk))


def take(desk: Desk, item: Prepared) -> list[News]:
    """Act on what has come in."""
    if isinstance(item, Refused):
        return [item]
    if isinstance(item, Ping):
        return [Pong()]
    if isinstance(item, Cancel):
        desk.cancel(item.id)
        return []
    return desk.admit(*item)


def run(load: Load) -> None:
    """Load what the first order names, then serve; returns if it cannot be loaded."""
    faulthandler.enable()
    for name in (
        "SIGINT",
        "SIGTERM",
        "SIGHUP",
    ):  # a terminal's or a supervisor's: the proxy drains first, then ends this
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    mouth = Mouth(_claimed_output())
    ear = Ear(0, mouth)
    ear.start()
    order = ear.first.get()
    try:
        desk, ready = load(order, lambda text: mouth.say(Loading(text)))
    except LoadError as exc:
        mouth.say(Failed(str(exc)))
        return
    ear.desk = desk
    mouth.say(ready)
    serve(desk, ear.prepared, mouth)


def _claimed_output() -> BinaryIO:
    """Standard output for news alone; what libraries print goes to standard error from now on."""
    out = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return os.fdopen(out, "wb")


if __name__ == "__main__":
    from predawn.kernels.engine import loading, worker

    worker.run(loading.load_engine)  # not this module's own `run`: its errors are not those that `loading` knows
