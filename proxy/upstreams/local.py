"""The local engine as an upstream: a model that answers on this machine, in a process of its own. The only importer of
`predawn.kernels`, and of its torch-free side only.

Requests go to the engine as they came; what comes back is put into OpenAI's words here.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any

from multidict import CIMultiDict

from predawn.kernels.engine.client import WORKER, Answer, EngineClient, EngineError, RefusedError, Said
from predawn.kernels.engine.protocol import Began, Ended, Open, Piece, Ready, Refused, Stats
from predawn.proxy.exchange import Reply, RouteName
from predawn.proxy.tasks import Tasks
from predawn.proxy.upstreams.base import Reason, UpstreamError, UpstreamRequest
from predawn.proxy.upstreams.local_wire import (
    STREAM_HEADERS,
    ChatWords,
    CompletionWords,
    Wording,
    refusal,
    whole_reply,
)
from predawn.proxy.wire.sse import split_events

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from predawn.proxy.clock import Clock
    from predawn.proxy.engine_meters import EngineMeters
    from predawn.proxy.settings import UpstreamSettings

ROUTES: frozenset[RouteName] = frozenset({"chat", "completions"})
FIRST_RETRY_S = 1.0
CROWD = 2
"""Requests are not even read once there are this many times as many as may run and wait. Below that the engine refuses
them itself, and knows better when to come back."""


class LocalSource:
    """The body of a streamed answer; closing it cancels what is left of the answer."""

    def __init__(self, upstream: str, answer: Answer, words: Wording, first: Sequence[Said], idle_s: float) -> None:
        self._upstream = upstream
        self._answer = answer
        self._words = words
        self._said = first
        self._idle_s = idle_s

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while True:
            said, self._said = self._said, ()
            if data := b"".join([self._told(item) for item in said]):
                return data
            self._said = await self._more()
            if not self._said:
                raise StopAsyncIteration

    async def aclose(self) -> None:
        self._answer.close()

    def _told(self, said: Said) -> bytes:
        if isinstance(said, Piece):
            return self._words.piece(said)
        return self._words.end(said) if isinstance(said, Ended) else b""

    async def _more(self) -> Sequence[Said]:
        try:
            async with asyncio.timeout(self._idle_s):
                return await self._answer.more()
        except TimeoutError as exc:
            message = f"nothing came for {self._idle_s:g} s"
            raise UpstreamError(self._upstream, "timeout_idle", message, sent_nothing=False) from exc
        except (EngineError, RefusedError) as exc:
            message = f"the answer broke off: {exc}"
            reason: Reason = "crashed" if isinstance(exc, EngineError) else "truncated"
            raise UpstreamError(self._upstream, reason, message, sent_nothing=False) from exc


class LocalUpstream:
    """Answers with a model on this machine; implements `Upstream`."""

    def __init__(self, settings: UpstreamSettings, clock: Clock, *, command: Sequence[str] = WORKER) -> None:
        self.settings = settings
        self.name = settings.name
        self.routes: frozenset[RouteName] = ROUTES & frozenset(settings.routes)
        self._clock = clock
        self._tasks = Tasks()
        self._meters: EngineMeters | None = None
        self._retry_after_s = FIRST_RETRY_S
        """What the engine itself said last."""
        self._engine = EngineClient(
            opening(settings),
            name=settings.name,
            spawn=self._tasks.spawn,
            hang_s=settings.engine.hang_s,
            sleep=clock.sleep,
            now=clock.monotonic,
            heard=self._heard,
            command=command,
        )

    @property
    def condition(self) -> str:
        """`starting`, `ready`, `restarting` or `stopped`."""
        return self._engine.condition

    @property
    def load(self) -> int:
        """Requests that the engine works on, or that wait for it."""
        return self._engine.live

    def meter(self, meters: EngineMeters) -> None:
        """Keep these meters up to date from now on."""
        self._meters = meters

    async def open(self) -> None:
        """Start the engine and wait for its model. Raises `UpstreamError` saying why there is none."""
        try:
            await self._engine.open()
        except EngineError as exc:
            raise UpstreamError(self.name, "connect", str(exc)) from exc

    async def aclose(self) -> None:
        await self._engine.aclose()
        await self._tasks.cancel()
        self._heard(None)

    async def models(self) -> list[str]:
        return [self._engine.info.model] if self._engine.info is not None else []

    async def send(self, request: UpstreamRequest) -> Reply:
        info = await self._ready()
        body = request.body if isinstance(request.body, bytes) else b"".join([part async for part in request.body])
        if (refused := self._refused(info, len(body))) is not None:
            return refusal(refused)
        answer = self._ask(request, body)
        handed_over = False
        try:
            async with asyncio.timeout(self.settings.timeouts.first_byte_s):
                began, said = await _first(answer)
            words = self._words(request, began, info)
            if began.stream:
                handed_over = True
                source = LocalSource(self.name, answer, words, said, self.settings.timeouts.idle_s)
                return Reply(200, CIMultiDict(STREAM_HEADERS), source=source, split=split_events)
            return whole_reply(_whole(words, said))
        except RefusedError as exc:
            if exc.refusal.retry_after_s is not None:
                self._retry_after_s = exc.refusal.retry_after_s
            return refusal(exc.refusal)
        except TimeoutError as exc:
            message = f"no answer within {self.settings.timeouts.first_byte_s:g} s"
            raise UpstreamError(self.name, "timeout_ttft", message) from exc
        except EngineError as exc:
            # one that may have brought the engine down must not get at the next one: everybody's
            raise UpstreamError(self.name, "crashed" if exc.taken else "connect", str(exc)) from exc
        finally:
            if not handed_over:
                answer.close()

    async def _ready(self) -> Ready:
        """What runs, once it does; an engine that has just died is given `connect_s` to come back."""
        try:
            async with asyncio.timeout(self.settings.timeouts.connect_s):
                await self._engine.ready()
        except TimeoutError as exc:
            raise UpstreamError(self.name, "connect", f"the engine is {self.condition}") from exc
        assert self._engine.info is not None
        return self._engine.info

    def _ask(self, request: UpstreamRequest, body: bytes) -> Answer:
        ask = self._engine.chat if request.route == "chat" else self._engine.complete
        try:
            return ask(body, salt=request.tenant)
        except EngineError as exc:
            raise UpstreamError(self.name, "connect", str(exc)) from exc

    def _refused(self, info: Ready, size: int) -> Refused | None:
        """What need not be sent to the engine at all: a body that cannot fit, and a request too many."""
        if size > info.largest_body:
            message = f"This model's maximum context length is {info.context} tokens; the request has {size} bytes."
            return Refused(id=0, status=400, message=message, code="context_length_exceeded")
        if self._engine.live >= CROWD * (info.max_batch + self.settings.engine.max_waiting):
            message = f"The local engine is busy: {self._engine.live} requests are there already."
            code = "rate_limit_exceeded"
            return Refused(id=0, status=429, message=message, code=code, retry_after_s=self._retry_after_s)
        return None

    def _words(self, request: UpstreamRequest, began: Began, info: Ready) -> Wording:
        prefix = "chatcmpl" if request.route == "chat" else "cmpl"
        head: dict[str, Any] = {
            "id": f"{prefix}-{secrets.token_hex(12)}",
            "object": "",
            "created": int(self._clock.now()),
            "model": request.model,
            "system_fingerprint": info.fingerprint,
        }
        include_usage = began.stream and began.wants_usage
        if request.route == "chat":
            return ChatWords(head, stream=began.stream, include_usage=include_usage)
        return CompletionWords(head, include_usage=include_usage)

    def _heard(self, said: Stats | Ready | None) -> None:
        if self._meters is None:
            return
        if isinstance(said, Stats):
            self._meters.busy(said)
        elif said is not None:
            self._meters.started(said)
        else:
            self._meters.lost()

    def __repr__(self) -> str:
        return f"<LocalUpstream {self.name!r} {self.condition}>"


async def _first(answer: Answer) -> tuple[Began, list[Said]]:
    """How the engine took the request, and what there is of the answer: its beginning, or all if it does not stream."""
    said: list[Said] = []
    while True:
        more = await answer.more()
        assert more, "an answer ends with its counts"
        said += more
        began = said[0]
        assert isinstance(began, Began)
        if isinstance(said[-1], Ended) or (began.stream and len(said) > 1):
            return began, said


def _whole(words: Wording, said: Sequence[Said]) -> bytes:
    ended = said[-1]
    assert isinstance(ended, Ended)
    return words.whole([item for item in said if isinstance(item, Piece)], ended)


def opening(settings: UpstreamSettings) -> Open:
    """The engine's first order, from the settings."""
    engine = settings.engine
    return Open(
        path=str(settings.path) if settings.path is not None else None,
        device=engine.device,
        dtype=None if engine.dtype == "auto" else engine.dtype,
        threads=engine.threads,
        context=engine.context,
        kv_memory_mb=engine.kv_memory_mb,
        max_batch=engine.max_batch,
        max_waiting=engine.max_waiting,
        prefill_chunk=engine.prefill_chunk,
        lookup=engine.lookup,
        most_width=engine.width,
    )
