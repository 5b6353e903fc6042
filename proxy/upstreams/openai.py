"""An upstream that speaks the API natively: bytes out, bytes in, over pooled keep-alive connections."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict
from yarl import URL

from predawn.proxy.clock import Clock
from predawn.proxy.exchange import Chunk, Reply, RouteName
from predawn.proxy.settings import UpstreamSettings
from predawn.proxy.upstreams.base import UpstreamError, UpstreamRequest
from predawn.proxy.upstreams.direct import DirectClient, header_lines
from predawn.proxy.upstreams.tap import TapSource, tapped
from predawn.proxy.wire.fold import whole_body
from predawn.proxy.wire.headers import to_client
from predawn.proxy.wire.sse import split_events

PIECE_BYTES = 256 << 10
LARGE_BODY_BYTES = 1 << 20
REDIRECTS = frozenset({301, 302, 303, 307, 308})
AUTO_HEADERS = ("User-Agent", "Content-Type", "Accept")


class OpenAIUpstream:
    """Sends requests to `base_url` with the provider's own key; implements `Upstream`."""

    def __init__(self, settings: UpstreamSettings, clock: Clock) -> None:
        assert settings.base_url is not None
        self.settings = settings
        self.name = settings.name
        self.routes: frozenset[RouteName] = frozenset(settings.routes)
        self._clock = clock
        self._base = settings.base_url.rstrip("/")
        self._path = URL(self._base, encoded=True).raw_path.rstrip("/")
        self._fixed = self._fixed_headers()
        self._fixed_lines = header_lines(self._fixed).encode("utf-8", "surrogateescape")
        self._overrides = bool(settings.headers)
        self._session: aiohttp.ClientSession | None = None
        self._direct: DirectClient | None = None

    def _fixed_headers(self) -> CIMultiDict[str]:
        settings = self.settings
        fixed: CIMultiDict[str] = CIMultiDict({"Accept-Encoding": "identity"})
        for name, value in settings.headers.items():
            fixed[name] = value.get_secret_value()
        if settings.api_key is not None and settings.auth != "none":
            key = settings.api_key.get_secret_value()
            if settings.auth == "bearer":
                fixed["Authorization"] = f"Bearer {key}"
            else:
                fixed[settings.auth] = key
        return fixed

    async def open(self) -> None:
        settings = self.settings
        connector = aiohttp.TCPConnector(
            limit=settings.max_connections,
            keepalive_timeout=60,
            ttl_dns_cache=30,
            ssl=_tls(settings),
        )
        timeouts = settings.timeouts
        self._session = aiohttp.ClientSession(
            connector=tapped(connector),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeouts.connect_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=AUTO_HEADERS,
            trust_env=False,
        )
        self._direct = DirectClient(
            self._session, URL(self._base, encoded=True), connect_s=timeouts.connect_s, head_s=timeouts.first_byte_s
        )

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def send(self, request: UpstreamRequest) -> Reply:
        timeouts = self.settings.timeouts
        try:
            return await self._send(request)
        except aiohttp.ConnectionTimeoutError as exc:
            message = f"no connection within {timeouts.connect_s:g} s"
            raise UpstreamError(self.name, "connect", message) from exc
        except TimeoutError as exc:
            message = f"no answer within {timeouts.first_byte_s:g} s"
            raise UpstreamError(self.name, "timeout_ttft", message) from exc
        except (aiohttp.ClientConnectionError, OSError) as exc:
            raise UpstreamError(self.name, "connect", f"cannot connect ({_told(exc)})") from exc
        except (aiohttp.ClientError, HttpProcessingError, ValueError) as exc:
            raise UpstreamError(self.name, "protocol", f"not a valid HTTP answer ({_told(exc)})") from exc

    async def _send(self, request: UpstreamRequest) -> Reply:
        if self._session is None or self._direct is None:
            raise RuntimeError(f"upstream {self.name!r} is not open")
        timeouts = self.settings.timeouts
        headers: Mapping[str, str] = request.headers
        if self._overrides:  # the settings' own headers take the place of the client's
            headers = CIMultiDict((name, value) for name, value in headers.items() if name not in self._fixed)
        body = request.body
        if isinstance(body, bytes) and len(body) <= LARGE_BODY_BYTES and self.settings.http_proxy is None:
            target = self._path + request.path
            answer = await self._direct.send(request.method, target, headers, body, more_headers=self._fixed_lines)
            protocol = answer.connection.protocol
            source = TapSource(answer.content, answer.connection, protocol, self.name, timeouts.idle_s)
            return await self._reply(answer.status, answer.headers, source)
        async with asyncio.timeout(timeouts.first_byte_s):
            response = await self._by_session(request, CIMultiDict(headers))
        connection = response.connection
        protocol = connection.protocol if connection is not None else None
        source = TapSource(response.content, response, protocol, self.name, timeouts.idle_s)
        return await self._reply(response.status, response.headers, source)

    async def _by_session(self, request: UpstreamRequest, headers: CIMultiDict[str]) -> aiohttp.ClientResponse:
        """The long way, for what is unusual: HTTP proxies, and bodies too large to be written at once."""
        assert self._session is not None
        headers.update(self._fixed)
        body: Any = request.body
        if isinstance(body, bytes) and len(body) > LARGE_BODY_BYTES:
            headers["Content-Length"] = str(len(body))
            body = _pieces(body)
        return await self._session.request(
            request.method,
            URL(self._base + request.path, encoded=True),
            data=body or None,
            headers=headers,
            allow_redirects=False,
            proxy=self.settings.http_proxy,
        )

    async def _reply(self, status: int, headers: Mapping[str, str], source: TapSource) -> Reply:
        """The reply once its first bytes are there; the connection is closed if they do not come."""
        is_handed_over = False
        try:
            if status in REDIRECTS:
                raise UpstreamError(self.name, "protocol", f"it answered {status}, and redirects are not followed")
            split = whole_body
            if headers.get("Content-Type", "").startswith("text/event-stream"):
                split = split_events
                if not source.has_begun:
                    async with asyncio.timeout(self.settings.timeouts.first_byte_s):
                        await source.first_byte()
            is_handed_over = True
            return Reply(status, to_client(headers), source=source, split=split)
        finally:
            if not is_handed_over:
                await source.aclose()

    async def models(self) -> list[str]:
        request = UpstreamRequest("raw", "GET", "/models", "", b"", {}, stream=False, decoded=dict)
        reply = await self.send(request)
        assert reply.source is not None
        try:
            chunks = [chunk async for chunk in whole_body(reply.source)]
        finally:
            await reply.source.aclose()
        return _model_ids(chunks[0]) if reply.ok else []

    def __repr__(self) -> str:
        return f"<OpenAIUpstream {self.name!r} {self._base}>"


def _model_ids(body: Chunk) -> list[str]:
    listed = (body.data or {}).get("data")
    if not isinstance(listed, list):
        return []
    return [item["id"] for item in listed if isinstance(item, dict) and isinstance(item.get("id"), str)]


def _tls(settings: UpstreamSettings) -> ssl.SSLContext | bool:
    if not settings.verify_tls:
        return False
    if settings.ca_file is None:
        return True
    return ssl.create_default_context(cafile=str(settings.ca_file))


def _told(exc: BaseException) -> str:
    """What went wrong, without headers or URLs that may hold secrets."""
    if isinstance(exc, aiohttp.ClientConnectorError):
        return exc.os_error.strerror or type(exc.os_error).__name__
    if isinstance(exc, aiohttp.ClientResponseError):
        return exc.message or type(exc).__name__
    if isinstance(exc, aiohttp.ServerDisconnectedError):  # its message may be the unfinished head
        return "it closed the connection"
    if isinstance(exc, HttpProcessingError):  # after the colon it quotes the answer's head
        return exc.message.partition(":")[0] or type(exc).__name__
    return str(exc) or type(exc).__name__


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    """A large body in pieces, so that sending it does not hold up the others."""
    view = memoryview(body)
    for start in range(0, len(body), PIECE_BYTES):
        yield bytes(view[start : start + PIECE_BYTES])
