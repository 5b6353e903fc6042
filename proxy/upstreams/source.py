"""The body of one answer, kept until somebody reads it: by iteration, or by listening."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from predawn.proxy.upstreams.base import UpstreamError
from predawn.proxy.upstreams.inflater import Inflater

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from predawn.proxy.upstreams.answer_head import AnswerHead
    from predawn.proxy.upstreams.connection import UpstreamConnection

MAX_UNREAD_BYTES = 256 << 10
"""More than this is left to the connection, and so to the upstream, until somebody reads."""


class AnswerSource:
    """Receives one answer; a `Receiver` to its connection and a `TappedSource` to those who relay it.

    asked ──on_head──> coming ──on_end──> complete ──read to its end──> at end
      │                  │  ^ paused while more than 256 KiB wait, or its reader says so
      └── on_lost ───────┴──> lost: `error` is set; what came before can still be read

    Timeouts are the pool's; the connection is its own until the answer is complete, and then somebody else's.
    """

    __slots__ = (
        "_connection",
        "_has_all",
        "_inflater",
        "_is_full",
        "_is_held",
        "_listener",
        "_pieces",
        "_size",
        "_upstream",
        "error",
        "head",
        "idle_s",
        "received",
    )

    def __init__(self, connection: UpstreamConnection, upstream: str, idle_s: float) -> None:
        self._connection: UpstreamConnection | None = connection
        self._upstream = upstream
        self._inflater: Inflater | None = None
        self._listener: Callable[[], None] | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._is_full = False
        self._is_held = False
        """True while its reader wants no more."""
        self.idle_s = idle_s
        self.head: AnswerHead | None = None
        self.received = 0
        """Bytes of the body that came, in whatever coding."""
        self.error: UpstreamError | None = None
        """Why the answer will never be complete."""
        self._has_all = False

    @classmethod
    def adopt(cls, connection: UpstreamConnection, head: AnswerHead, upstream: str, idle_s: float) -> AnswerSource:
        """Take over an answer from the receiver that just got its head."""
        source = cls(connection, upstream, idle_s)
        connection.receiver = source
        source.on_head(head)
        return source

    # -- called by the connection

    def on_head(self, head: AnswerHead) -> None:
        self.head = head
        coding = head.get(b"content-encoding")
        if coding is not None and coding.strip().lower() not in (b"", b"identity"):
            self._inflater = Inflater(coding)
        self._tell()

    def on_body(self, data: bytes, is_last: bool = False) -> None:  # noqa: ARG002 - it is told by `on_end`
        self._pieces.append(data)
        self._size += len(data)
        self.received += len(data)
        self._tell()
        if self._size > MAX_UNREAD_BYTES and self._connection is not None and not self._is_full:
            self._is_full = True
            self._connection.pause()

    def on_chunk(self, data: bytes) -> None:
        if self._size + len(data) > MAX_UNREAD_BYTES or self._listener is None:
            self.on_body(data)
            return
        self._pieces.append(data)
        self._size += len(data)
        self.received += len(data)
        self._listener()

    def on_end(self) -> None:
        self._connection = None
        self._has_all = True
        if self._inflater is not None and not self._size:
            self._check_end(self._inflater)
        self._tell()

    def on_lost(self, error: UpstreamError) -> None:
        self._connection = None
        self.error = error
        self._tell()

    def _tell(self) -> None:
        if self._listener is not None:
            self._listener()

    # -- called by whoever reads

    @property
    def is_complete(self) -> bool:
        """True once one `read_nowait` can bring all there is, or did."""
        return self._has_all and self.error is None and (self._inflater is None or not self._size)

    @property
    def at_end(self) -> bool:
        return self._has_all and not self._size and self.error is None

    def read_nowait(self) -> bytes:
        """What is there; of a compressed body a part of it, and nothing once it is at its end."""
        if not self._size:
            return b""
        pieces, self._pieces, self._size = self._pieces, [], 0
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if self._inflater is not None:
            data = self._inflated(self._inflater, data)
        if self._is_full and not self._size:
            self._is_full = False
            if not self._is_held and self._connection is not None:
                self._connection.resume()
        return data

    def _inflated(self, inflater: Inflater, data: bytes) -> bytes:
        shown = b""
        try:
            while data and not shown:
                shown, data = inflater.feed(data)
        except ValueError as exc:
            self._spoil(exc)
            return b""
        if data:
            self._pieces, self._size = [data], len(data)
        elif self._has_all:
            self._check_end(inflater)
        return shown

    def _check_end(self, inflater: Inflater) -> None:
        try:
            inflater.check_end()
        except ValueError as exc:
            self._spoil(exc)

    def _spoil(self, exc: ValueError) -> None:
        if self.error is None:
            self.error = UpstreamError(self._upstream, "protocol", str(exc), sent_nothing=False)
        self._leave()

    def listen(self, callback: Callable[[], None] | None) -> None:
        self._listener = callback

    def pause(self) -> None:
        self._is_held = True
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        self._is_held = False
        if self._connection is not None and not self._is_full:
            self._connection.resume()

    async def begin(self, *, with_body: bool = False) -> None:
        """Wait for the head, or for what follows it. Raises `UpstreamError` if the answer is lost before."""
        while self.head is None or (with_body and not self.received and not self._has_all):
            if self.error is not None:
                error = UpstreamError(self._upstream, self.error.reason, self.error.message)
                error.is_stale = self.error.is_stale
                raise error
            await self._more()

    async def _more(self) -> None:
        """Wait until something happens."""
        happened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_news() -> None:
            if not happened.done():
                happened.set_result(None)

        self._listener = on_news
        try:
            await happened
        finally:
            self._listener = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            data = self.read_nowait()
            if data:
                yield data
            elif self.error is not None:
                raise self.error
            elif self.at_end:
                return
            elif not self._size:
                await self._more()

    def abort(self) -> None:
        """Close the connection if the answer is not complete; nothing more will come."""
        if not self._has_all and self.error is None:
            self.error = UpstreamError(self._upstream, "truncated", "the answer was given up", sent_nothing=False)
            self._tell()  # or somebody might wait for ever
        self._listener = None
        self._leave()

    def _leave(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    async def aclose(self) -> None:
        self.abort()

    def __repr__(self) -> str:
        state = "lost" if self.error is not None else "complete" if self._has_all else "coming"
        return f"<AnswerSource {state}, {self._size} bytes unread>"
