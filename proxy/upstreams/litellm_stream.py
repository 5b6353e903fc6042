"""A stream of LiteLLM's as server-sent events in OpenAI's shape, with an end only where the provider ended it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from predawn.proxy.upstreams.base import UpstreamError
from predawn.proxy.upstreams.litellm_shapes import clean_chunk, sse, usage_chunk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from predawn.proxy.upstreams.litellm_errors import Teller
    from predawn.proxy.upstreams.provider_wire import Wire

DONE = b"data: [DONE]\n\n"
DRAIN_S = 1.0


class NoEndError(RuntimeError):
    """A stream was over although the provider had not said why."""


class LiteLLMStream:
    """The source of a streaming reply; implements `ByteSource`."""

    def __init__(
        self,
        upstream: str,
        stream: Any,
        wire: Wire,
        teller: Teller,
        *,
        usage: bool,
        idle_s: float | None,
        needs_end: bool,
    ) -> None:
        self._upstream = upstream
        self._stream = stream
        self._wire = wire
        self._teller = teller
        self._usage = usage
        self._idle_s = idle_s
        """Longest gap between chunks, for networks that are not ours and do not watch it themselves."""
        self._needs_end = needs_end
        self._first: bytes | None = None
        self._finished = False
        """True once the provider said why it stopped."""
        self._over = False

    async def start(self) -> None:
        """Wait for the first event. Raises what LiteLLM raises, and `NoEndError` for an answer without any."""
        self._first = await self._event()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._first is not None:
            event, self._first = self._first, None
            return event
        if self._over:
            raise StopAsyncIteration
        try:
            async with asyncio.timeout(self._idle_s):
                return await self._event()
        except TimeoutError as exc:
            message = f"nothing came for {self._idle_s:g} s"
            raise UpstreamError(self._upstream, "timeout_idle", message, sent_nothing=False) from exc
        except self._teller.failures.raised as exc:
            if self._over:  # closed meanwhile by another task
                raise StopAsyncIteration from exc
            self._over = True
            self._wire.close()
            raise self._teller.lost(exc, self._wire) from exc

    async def _event(self) -> bytes:
        while not (self._finished and not self._usage):
            try:
                chunk = await anext(self._stream)
            except StopAsyncIteration:
                break
            data = chunk.model_dump(mode="json", warnings=False)
            if (usage := data.get("usage")) is not None and self._finished:
                if self._usage and self._reported():
                    self._usage = False
                    return sse(usage_chunk(data, usage))
                break
            if any(choice.get("finish_reason") for choice in data.get("choices") or ()):
                self._check_end()
                self._finished = True
            return sse(clean_chunk(data))
        self._check_end()
        self._over = True
        await self._wire.drain(DRAIN_S)
        return DONE

    def _check_end(self) -> None:
        """LiteLLM ends a stream that broke off with a `stop` of its own; only what the provider said counts."""
        if not self._needs_end:
            return
        wire = self._wire
        said = [getattr(self._stream, f"{kind}_finish_reason", True) for kind in ("received", "intermittent")]
        if not (wire.marked if wire.end_marks else any(said)):
            raise NoEndError("the answer ended without a reason for its end")

    def _reported(self) -> bool:
        """False where LiteLLM would count tokens itself, since the provider sent no usage."""
        chunks = getattr(self._stream, "chunks", None)
        return chunks is None or any(getattr(chunk, "usage", None) is not None for chunk in chunks)

    async def aclose(self) -> None:
        """Cancel the provider's request at once, whoever waits for its next chunk."""
        self._over = True
        self._first = None
        self._wire.close()
        inner = getattr(self._stream, "completion_stream", None)
        for part in (getattr(inner, "async_response_iterator", None), self._stream):
            close = getattr(part, "aclose", None)
            if close is not None:
                try:
                    await close()
                except RuntimeError:
                    continue  # it is waiting in another task, which the closed wire wakes
