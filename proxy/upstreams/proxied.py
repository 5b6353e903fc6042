"""Upstreams behind an HTTP proxy: requests by aiohttp's session, which knows how to ask one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict
from yarl import URL

from predawn.proxy.upstreams.base import UpstreamError
from predawn.proxy.upstreams.upload import PIECE_BYTES, in_pieces

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Mapping

    from predawn.proxy.settings import UpstreamSettings

AUTO_HEADERS = ("User-Agent", "Content-Type", "Accept")


class ProxiedClient:
    """Sends requests through the settings' `http_proxy`."""

    def __init__(self, settings: UpstreamSettings, tls: ssl.SSLContext | None) -> None:
        self._settings = settings
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=settings.max_connections, keepalive_timeout=60, ttl_dns_cache=30, ssl=tls or True
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.timeouts.connect_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=AUTO_HEADERS,
            trust_env=False,
        )

    async def send(
        self, method: str, url: str, headers: CIMultiDict[str], body: bytes | AsyncIterator[bytes]
    ) -> tuple[int, Mapping[str, str], SessionSource]:
        """Status, headers and body of the answer. Raises `UpstreamError`."""
        name, timeouts = self._settings.name, self._settings.timeouts
        data: Any = body
        if isinstance(body, bytes) and len(body) > PIECE_BYTES:
            headers["Content-Length"] = str(len(body))
            data = in_pieces(body)
        try:
            async with asyncio.timeout(timeouts.first_byte_s):
                response = await self._session.request(
                    method,
                    URL(url, encoded=True),
                    data=data or None,
                    headers=headers,
                    allow_redirects=False,
                    proxy=self._settings.http_proxy,
                )
        except aiohttp.ConnectionTimeoutError as exc:
            raise UpstreamError(name, "connect", f"no connection within {timeouts.connect_s:g} s") from exc
        except TimeoutError as exc:
            raise UpstreamError(name, "timeout_ttft", f"no answer within {timeouts.first_byte_s:g} s") from exc
        except (aiohttp.ClientConnectionError, OSError) as exc:
            raise UpstreamError(name, "connect", f"cannot connect ({_told(exc)})") from exc
        except (aiohttp.ClientError, HttpProcessingError, ValueError) as exc:
            raise UpstreamError(name, "protocol", f"not a valid HTTP answer ({_told(exc)})") from exc
        source = SessionSource(response, name, timeouts.first_byte_s, timeouts.idle_s)
        return response.status, response.headers, source

    async def aclose(self) -> None:
        await self._session.close()


class SessionSource:
    """The body of one answer; implements `ByteSource`."""

    __slots__ = ("_first", "_first_byte_s", "_idle_s", "_response", "_upstream")

    def __init__(self, response: aiohttp.ClientResponse, upstream: str, first_byte_s: float, idle_s: float) -> None:
        self._response = response
        self._upstream = upstream
        self._first_byte_s = first_byte_s
        self._idle_s = idle_s
        self._first: bytes | None = None

    async def begin(self) -> None:
        """Wait until something has come. Raises `UpstreamError` if that is lost or takes too long."""
        try:
            async with asyncio.timeout(self._first_byte_s):
                self._first = await self._response.content.readany()
        except TimeoutError as exc:
            message = f"no answer within {self._first_byte_s:g} s"
            raise UpstreamError(self._upstream, "timeout_ttft", message) from exc
        except (aiohttp.ClientError, OSError, RuntimeError) as exc:
            raise UpstreamError(self._upstream, "truncated", f"the answer was cut off ({_told(exc)})") from exc

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._first:
            first, self._first = self._first, None
            yield first
        while True:
            try:
                async with asyncio.timeout(self._idle_s):
                    data = await self._response.content.readany()
            except TimeoutError as exc:
                message = f"nothing came for {self._idle_s:g} s"
                raise UpstreamError(self._upstream, "timeout_idle", message, sent_nothing=False) from exc
            except (aiohttp.ClientError, OSError, RuntimeError) as exc:
                message = f"the answer was cut off ({_told(exc)})"
                raise UpstreamError(self._upstream, "truncated", message, sent_nothing=False) from exc
            if not data:
                return
            yield data

    async def aclose(self) -> None:
        if self._response.content.is_eof():
            self._response.release()
        else:
            self._response.close()


def _told(exc: BaseException) -> str:
    """What went wrong, without headers or URLs that may hold secrets."""
    if isinstance(exc, aiohttp.ClientConnectorError):
        return exc.os_error.strerror or type(exc.os_error).__name__
    if isinstance(exc, aiohttp.ServerDisconnectedError):  # its message may be the unfinished head
        return "it closed the connection"
    if isinstance(exc, HttpProcessingError):  # after the colon it quotes the answer's head
        return exc.message.partition(":")[0] or type(exc).__name__
    if isinstance(exc, aiohttp.ClientResponseError):
        return type(exc).__name__
    return str(exc) or type(exc).__name__
