"""The network below LiteLLM: an httpx transport over aiohttp that keeps what really happened on the wire.

LiteLLM translates; it also retries connections by itself, follows redirects, reads proxies from the environment and
maps errors by searching their text (413 becomes 400, 529 becomes 500, `retry-after` is lost). Handed this transport it
does none of that: each call has a `Wire`, and the call's outcome is read from there.
"""

from __future__ import annotations

import asyncio
import ssl
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import msgspec
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from predawn.proxy.settings import TimeoutSettings, UpstreamSettings
    from predawn.proxy.upstreams.base import Reason

HEAD_BYTES = 64 << 10
"""How much of a body is kept to explain an error."""
MARK_BYTES = 32
"""No end mark is longer."""
_NOT_RESENT = frozenset({"host", "accept-encoding", "connection", "content-length", "transfer-encoding"})
_NOT_RETURNED = frozenset({"content-encoding", "content-length", "transfer-encoding"})

current_wire: ContextVar[Wire] = ContextVar("predawn_provider_wire")
"""The call in progress; LiteLLM has no other place to carry it from its arguments to its transport."""


class Wire:
    """What one call did on the network, independent of how LiteLLM tells it."""

    __slots__ = (
        "_response",
        "_tail",
        "closed",
        "complete",
        "end_marks",
        "extra",
        "failure",
        "head",
        "headers",
        "marked",
        "status",
    )

    def __init__(self, extra: Mapping[str, Any] | None = None, end_marks: tuple[bytes, ...] = ()) -> None:
        self.extra: Mapping[str, Any] = extra or {}
        """Members of the request that LiteLLM does not know; the provider gets them as the client wrote them."""
        self.end_marks = end_marks
        """Bytes of which one is in every whole answer, for providers whose end LiteLLM does not tell."""
        self.marked = False
        """True once one of the `end_marks` was seen."""
        self.status = 0
        """Status of the provider's answer; 0 until there is one."""
        self.headers: Mapping[str, str] = {}
        self.head = bytearray()
        """The first `HEAD_BYTES` of the body."""
        self.complete = False
        """True once the body was read to an end that the protocol confirms."""
        self.failure: tuple[Reason, str] | None = None
        """The first thing that went wrong; what follows is its consequence."""
        self.closed = False
        self._response: aiohttp.ClientResponse | None = None
        self._tail = b""

    def fail(self, reason: Reason, message: str) -> None:
        if self.failure is None:
            self.failure = (reason, message)

    def answered(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.head.clear()
        self.status = response.status
        self.headers = response.headers

    def received(self, data: bytes) -> None:
        if len(self.head) < HEAD_BYTES:
            self.head += data[: HEAD_BYTES - len(self.head)]
        if self.end_marks and not self.marked:
            data = self._tail + data  # a mark may come in two pieces
            self.marked = any(mark in data for mark in self.end_marks)
            self._tail = data[-MARK_BYTES:]

    def close(self) -> None:
        """Abort the request if it is still going on; a connection whose answer was read is kept. Safe to call again."""
        self.closed = True
        if self._response is not None:
            self._response.close()

    async def drain(self, timeout_s: float) -> None:
        """Read what little may follow the end of an answer, so that its connection can be used again."""
        if self._response is None or self.complete:
            return
        try:
            async with asyncio.timeout(timeout_s):
                while await self._response.content.readany():
                    pass
        except (TimeoutError, aiohttp.ClientError):
            self.close()


class ProviderTransport(httpx.AsyncBaseTransport):
    """Sends httpx requests with an aiohttp session that obeys the upstream's settings."""

    def __init__(self, settings: UpstreamSettings) -> None:
        self._timeouts = settings.timeouts
        self._proxy = settings.http_proxy
        self._origin = URL(settings.base_url).origin() if settings.base_url else None
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=settings.max_connections, ssl=_tls(settings), keepalive_timeout=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.timeouts.connect_s),
            skip_auto_headers=("User-Agent", "Accept", "Content-Type"),
            max_line_size=32 << 10,
            max_field_size=32 << 10,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        wire = current_wire.get(None) or Wire()
        url = URL(str(request.url), encoded=True)
        if self._origin is not None and url.origin() != self._origin:
            wire.fail("protocol", f"refused to send to {url.origin()}, which is not its base_url")
            raise httpx.UnsupportedProtocol("not the base_url")
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _NOT_RESENT}
        headers["Accept-Encoding"] = "identity"  # streams must not wait in a compressor's window
        body = _with_extra(await request.aread(), wire.extra)
        response = await self._exchange(wire, request.method, url, headers, body)
        wire.answered(response)
        kept = [(name, value) for name, value in response.headers.items() if name.lower() not in _NOT_RETURNED]
        return httpx.Response(
            response.status, headers=kept, stream=_Body(response, wire, self._timeouts), request=request
        )

    async def _exchange(
        self, wire: Wire, method: str, url: URL, headers: Mapping[str, str], body: bytes
    ) -> aiohttp.ClientResponse:
        """Wait for the answer's headers. Errors are told as `ReadError`: LiteLLM repeats a call after others."""
        try:
            async with asyncio.timeout(self._timeouts.first_byte_s):
                return await self._session.request(
                    method, url, headers=headers, data=body, allow_redirects=False, proxy=self._proxy
                )
        except (
            aiohttp.ConnectionTimeoutError,
            aiohttp.ClientConnectorError,
            aiohttp.ClientProxyConnectionError,
        ) as exc:
            wire.fail("connect", f"no connection to {url.origin()} ({type(exc).__name__})")
            raise httpx.ReadError(str(exc), request=None) from exc
        except TimeoutError as exc:
            wire.fail("timeout_ttft", f"no answer within {self._timeouts.first_byte_s:g} s")
            raise httpx.ReadTimeout("no answer", request=None) from exc
        except (aiohttp.ClientConnectionError, OSError) as exc:
            wire.fail("connect", f"lost the connection before an answer ({type(exc).__name__})")
            raise httpx.ReadError(str(exc), request=None) from exc
        except aiohttp.ClientError as exc:
            wire.fail("protocol", f"no valid HTTP answer ({type(exc).__name__})")
            raise httpx.ReadError(str(exc), request=None) from exc

    async def aclose(self) -> None:
        """Nothing: LiteLLM closes clients as it likes; the session is closed by `close_session`."""

    async def close_session(self) -> None:
        await self._session.close()


class _Body(httpx.AsyncByteStream):
    """The bytes of one answer; each failure is noted on its wire before httpx and LiteLLM rename it."""

    __slots__ = ("_response", "_timeouts", "_wire")

    def __init__(self, response: aiohttp.ClientResponse, wire: Wire, timeouts: TimeoutSettings) -> None:
        self._response = response
        self._wire = wire
        self._timeouts = timeouts

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        wire = self._wire
        try:
            async with asyncio.timeout(self._timeouts.idle_s):
                data = await self._response.content.readany()
        except TimeoutError as exc:
            wire.fail("timeout_idle", f"nothing came for {self._timeouts.idle_s:g} s")
            wire.close()
            raise httpx.ReadTimeout("idle") from exc
        except (aiohttp.ClientError, OSError) as exc:
            if not wire.closed:
                wire.fail("truncated", f"the connection was lost in mid-answer ({type(exc).__name__})")
            raise httpx.ReadError(str(exc)) from exc
        if not data:
            wire.complete = True
            raise StopAsyncIteration
        wire.received(data)
        return data

    async def aclose(self) -> None:
        self._response.close()


def _with_extra(body: bytes, extra: Mapping[str, Any]) -> bytes:
    """Add members to a JSON object; what the translation itself wrote stands."""
    if not extra or not body.startswith(b"{"):
        return body
    return msgspec.json.encode({**extra, **msgspec.json.decode(body)})


def _tls(settings: UpstreamSettings) -> ssl.SSLContext | bool:
    if not settings.verify_tls:
        return False
    if settings.ca_file is None:
        return True
    context = ssl.create_default_context()
    context.load_verify_locations(settings.ca_file)
    return context
