"""The engine as the proxy sees it: a process that answers, is watched, and is started again when it dies or hangs.

Nothing here imports torch. The engine's process is told of everything through its standard input and ends with it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import msgspec

from predawn.kernels.engine.asks import Kind
from predawn.kernels.engine.environment import environment
from predawn.kernels.engine.protocol import (
    Ask,
    Began,
    Cancel,
    Ended,
    Failed,
    Frames,
    Loading,
    News,
    Open,
    Order,
    Piece,
    Ping,
    Ready,
    Refused,
    Stats,
    Taken,
    frame,
    news,
)

log = logging.getLogger("predawn.engine")

WORKER: Final = (sys.executable, "-P", "-m", "predawn.kernels.engine.worker")
READ_BYTES: Final = 1 << 18
LONGEST_LINE: Final = 1 << 13
LAST_WORDS: Final = 12
"""Lines of the process's standard error that an error message repeats."""
GRACE_S: Final = 2.0
FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 30.0
STEADY_S: Final = 60.0
"""An engine that has run this long is not one that dies as soon as it starts."""
HANG_S: Final = 30.0
BEATS: Final = 4
"""Silent pings in a row that make a hang. Counting them forgives a proxy that was itself stopped for a while: it comes
back to one late ping, where a look at the clock would find the engine silent for all that time."""

Condition: TypeAlias = Literal["starting", "ready", "restarting", "stopped"]
Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]
Said: TypeAlias = Began | Piece | Ended


class EngineError(Exception):
    """The engine cannot be started, or was lost. `taken`: it had taken the request up, which may be what ended it."""

    def __init__(self, message: str, *, taken: bool = False) -> None:
        super().__init__(message)
        self.taken = taken


class RefusedError(Exception):
    """The engine does not take a request; `refusal` says why."""

    def __init__(self, refusal: Refused) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Answer:
    """What the engine says to one request, as it comes: `Began`, `Piece`s, `Ended`.

    Raises `RefusedError` in place of `Began`, and `EngineError` when the engine dies. Close it: an answer that is not
    over is cancelled, which frees what it holds there.
    """

    def __init__(self, number: int, close: Callable[[Answer], None]) -> None:
        self.number = number
        self._close = close
        self._said: deque[Said] = deque()
        self._error: EngineError | RefusedError | None = None
        self._wake: asyncio.Future[None] | None = None
        self.is_taken = False
        """True once the engine has begun to look at the request."""
        self.is_over = False
        """True once nothing more will be said."""

    async def more(self) -> list[Said]:
        """All that has been said since the last time, at least one; empty at the end."""
        while not self._said:
            if self._error is not None:
                raise self._error
            if self.is_over:
                return []
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None
        said = list(self._said)
        self._said.clear()
        return said

    def close(self) -> None:
        """Nobody listens any more."""
        self._close(self)

    def put(self, said: Said) -> None:
        """Something was said."""
        self._said.append(said)
        if isinstance(said, Ended):
            self.is_over = True
        self._rouse()

    def fail(self, error: EngineError | RefusedError) -> None:
        """It ends without an end."""
        self._error = error
        self.is_over = True
        self._rouse()

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


@dataclass(slots=True)
class _Life:
    """One process, from its start to its death."""

    process: asyncio.subprocess.Process
    answers: dict[int, Answer] = field(default_factory=dict[int, Answer])
    last_words: deque[str] = field(default_factory=lambda: deque[str](maxlen=LAST_WORDS))
    was_heard: bool = False
    """Since the last ping."""
    hung: bool = False

    def tell(self, *orders: Order) -> None:
        """Send orders; a process that is gone gets none."""
        assert self.process.stdin is not None
        if not self.process.stdin.is_closing():
            self.process.stdin.write(frame(*orders))


class EngineClient:
    """Starts the engine's process, hands requests to it, and starts it again with growing pauses when it dies.

    Once it is ready, a process that gives no sign of life for `hang_s` is killed; one step must not take that long.
    `spawn` makes tasks and `sleep` passes time, so that whoever uses the client decides how. `heard` is told `Stats`,
    `Ready`, and None when the engine is lost.
    """

    def __init__(
        self,
        order: Open,
        *,
        name: str,
        spawn: Spawn,
        hang_s: float = HANG_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        heard: Callable[[Stats | Ready | None], None] = lambda _: None,
        now: Callable[[], float] = time.monotonic,
        command: Sequence[str] = WORKER,
    ) -> None:
        self.name = name
        self.condition: Condition = "stopped"
        self._order = order
        self._spawn = spawn
        self._hang_s = hang_s
        self._sleep = sleep
        self._heard = heard
        self._now = now
        self._command = command
        self._life: _Life | None = None
        self._info: Ready | None = None
        self._turned = asyncio.Event()
        """Set while `condition` is "ready"."""
        self._numbers = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def info(self) -> Ready | None:
        """What runs; None until it is ready for the first time."""
        return self._info

    @property
    def pid(self) -> int | None:
        """The engine's process; None between two of them."""
        return self._life.process.pid if self._life is not None else None

    @property
    def live(self) -> int:
        """Requests that are waiting or running."""
        return len(self._life.answers) if self._life is not None else 0

    async def open(self) -> Ready:
        """Start the engine and wait until it is ready. Raises `EngineError` saying why it is not."""
        self.condition = "starting"
        opened: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self._task = self._spawn(self._keep_alive(opened), f"engine-{self.name}")
        try:
            return await opened
        except BaseException:
            await self.aclose()
            raise

    async def ready(self) -> None:
        """Wait until requests can be asked."""
        await self._turned.wait()

    def chat(self, body: bytes, *, salt: str | None = None) -> Answer:
        """Ask for what `/v1/chat/completions` is asked for."""
        return self.ask("chat", body, salt=salt)

    def complete(self, body: bytes, *, salt: str | None = None) -> Answer:
        """Ask for what `/v1/completions` is asked for."""
        return self.ask("completions", body, salt=salt)

    def ask(self, kind: Kind, body: bytes, *, salt: str | None = None) -> Answer:
        """Hand over a request as it came. Raises `EngineError` if the engine is not ready."""
        life = self._life
        if life is None or self.condition != "ready":
            raise EngineError(f"the engine is {self.condition}")
        self._numbers += 1
        answer = Answer(self._numbers, self._forget)
        life.answers[answer.number] = answer
        life.tell(Ask(answer.number, kind, body, salt))
        return answer

    async def aclose(self) -> None:
        """End the process; answers that are not over fail."""
        self.condition = "stopped"
        self._turned.clear()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def _forget(self, answer: Answer) -> None:
        life = self._life
        if life is not None and life.answers.pop(answer.number, None) is not None:
            life.tell(Cancel(answer.number))

    # -- the life of the process

    async def _keep_alive(self, opened: asyncio.Future[Ready]) -> None:
        """Start it, and again whenever it ends; the first start must succeed."""
        pause_s = FIRST_PAUSE_S
        while True:
            began = self._now()
            try:
                reason = await self._live(opened)
            except OSError as exc:
                reason = f"its process cannot be started: {exc}"
            if not opened.done():
                opened.set_exception(EngineError(reason))
            if opened.cancelled() or opened.exception() is not None:
                return
            self._heard(None)
            if self._now() - began >= STEADY_S:
                pause_s = FIRST_PAUSE_S
            log.error("engine %s: %s; starting it again in %g s", self.name, reason, pause_s)
            await self._sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _live(self, opened: asyncio.Future[Ready]) -> str:
        """Run the process until it ends; why it did. Raises `OSError` if there is none."""
        pipe = asyncio.subprocess.PIPE
        # a session of its own: a terminal's Ctrl-C is for the proxy, which drains first
        process = await asyncio.create_subprocess_exec(
            *self._command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True, env=environment(os.environ)
        )
        life = self._life = _Life(process)
        errors = self._spawn(self._log_errors(life), f"engine-{self.name}-errors")
        watch = self._spawn(self._watch(life), f"engine-{self.name}-watch")
        try:
            life.tell(self._order)
            if (reason := await self._listen(life, opened)) is not None:
                return reason
            self._over(life)  # its requests learn of it before anything else is waited for
            status = await process.wait()
            await asyncio.wait([errors], timeout=GRACE_S)
            if life.hung:
                return f"its process gave no sign of life for {self._hang_s:g} s (`engine.hang_s`) and was killed"
            return _why_it_ended(status, life.last_words)
        finally:
            watch.cancel()
            self._over(life)
            await _bury(process)
            errors.cancel()

    def _over(self, life: _Life) -> None:
        """No more requests for this process; those it had fail. Harmless a second time."""
        self._turned.clear()
        if self.condition == "ready":
            self.condition = "restarting"
        self._life = None
        answers = tuple(life.answers.values())
        life.answers.clear()
        for answer in answers:
            answer.fail(EngineError("the engine's process ended", taken=answer.is_taken))

    async def _watch(self, life: _Life) -> None:
        """Kill the process if it hangs. Not while it loads, which takes as long as the disk takes."""
        await self._turned.wait()
        silent = 0
        while silent < BEATS:
            life.was_heard = False
            life.tell(Ping())
            await self._sleep(self._hang_s / BEATS)
            silent = 0 if life.was_heard else silent + 1
        life.hung = True
        self._over(life)  # now: a process that waits for a broken disk or driver may take its time to die
        life.process.kill()

    async def _listen(self, life: _Life, opened: asyncio.Future[Ready]) -> str | None:
        """Hear what it says until it says no more; why it is to be ended, if it lives on."""
        assert life.process.stdout is not None
        frames = Frames()
        while data := await life.process.stdout.read(READ_BYTES):
            life.was_heard = True
            try:
                for said in news(frames.feed(data)):
                    if isinstance(said, Failed):
                        return said.message
                    self._hear(said, life, opened)
            except msgspec.DecodeError as exc:
                return f"its process speaks nonsense: {exc}"
        return None

    def _hear(self, said: News, life: _Life, opened: asyncio.Future[Ready]) -> None:
        if isinstance(said, Taken | Piece | Began | Ended | Refused):
            _deliver(life, said)
        elif isinstance(said, Loading):
            log.info("engine %s: %s", self.name, said.text)
        elif isinstance(said, Stats):
            self._heard(said)
        elif isinstance(said, Ready):
            self._greet(said, life)
            if not opened.done():
                opened.set_result(said)

    def _greet(self, ready: Ready, life: _Life) -> None:
        self._info = ready
        self.condition = "ready"
        self._turned.set()
        self._heard(ready)
        what = f"{ready.model} on {ready.device} in {ready.dtype}, {ready.context} tokens of context"
        log.info("engine %s: %s, ready in %.1f s as process %d", self.name, what, ready.load_s, life.process.pid)

    async def _log_errors(self, life: _Life) -> None:
        """What it writes to standard error, line by line."""
        assert life.process.stderr is not None
        held = b""
        while data := await life.process.stderr.read(READ_BYTES):
            *lines, held = (held + data).split(b"\n")
            for line in [*lines, *([held] if len(held) > LONGEST_LINE else [])]:
                text = line.decode("utf-8", "replace").rstrip()
                life.last_words.append(text)
                log.warning("engine %s says: %s", self.name, text)
            held = b"" if len(held) > LONGEST_LINE else held


async def _bury(process: asyncio.subprocess.Process) -> None:
    """End a process: it goes when its input ends, or else by force."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(GRACE_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _deliver(life: _Life, said: Taken | Piece | Began | Ended | Refused) -> None:
    answer = life.answers.get(said.id)
    if answer is None:
        return  # cancelled while it was on its way
    if isinstance(said, Taken):
        answer.is_taken = True
        return
    if isinstance(said, Refused):
        del life.answers[said.id]
        answer.fail(RefusedError(said))
        return
    if isinstance(said, Ended):
        del life.answers[said.id]
    answer.put(said)


def _why_it_ended(status: int, last_words: Sequence[str]) -> str:
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    return "\n".join([f"its process {how}", *last_words])
