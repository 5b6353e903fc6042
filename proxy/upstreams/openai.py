"""An upstream that speaks the API natively: bytes out, bytes in, over pooled keep-alive connections."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from predawn.proxy.clock import Clock
from predawn.proxy.exchange import Chunk, Reply, RouteName
from predawn.proxy.settings import UpstreamSettings
from predawn.proxy.upstreams.base import UpstreamError, UpstreamRequest
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
        self._urls: dict[str, URL] = {}
        self._fixed = self._fixed_headers()
        self._session: aiohttp.ClientSession | None = None

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
        self._session = aiohttp.ClientSession(
            connector=tapped(connector),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.timeouts.connect_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=AUTO_HEADERS,
            trust_env=False,
        )

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def send(self, request: UpstreamRequest) -> Reply:
        timeouts = self.settings.timeouts
        try:
            async with asyncio.timeout(timeouts.first_byte_s):
                response = await self._request(request)
                return await self._reply(response)
        except TimeoutError as exc:
            if isinstance(exc, aiohttp.ClientError):  # the connector's own timeout
                message = f"no connection within {timeouts.connect_s:g} s"
                raise UpstreamError(self.name, "connect", message) from exc
            message = f"no answer within {timeouts.first_byte_s:g} s"
            raise UpstreamError(self.name, "timeout_ttft", message) from exc
        except (aiohttp.ClientConnectionError, OSError) as exc:
            raise UpstreamError(self.name, "connect", f"cannot connect ({_told(exc)})") from exc
        except (aiohttp.ClientError, ValueError) as exc:
            raise UpstreamError(self.name, "protocol", f"not a valid HTTP answer ({_told(exc)})") from exc

    async def _reply(self, response: aiohttp.ClientResponse) -> Reply:
        """The reply once its first bytes are there; the connection is closed if they do not come."""
        is_handed_over = False
        try:
            if response.status in REDIRECTS:
                message = f"it answered {response.status}, and redirects are not followed"
                raise UpstreamError(self.name, "protocol", message)
            source = TapSource(response, self.name, self.settings.timeouts.idle_s)
            split = whole_body
            if response.headers.get("Content-Type", "").startswith("text/event-stream"):
                split = split_events
                await source.first_byte()
            is_handed_over = True
            return Reply(response.status, to_client(response.headers), source=source, split=split)
        finally:
            if not is_handed_over:
                response.close()

    async def _request(self, request: UpstreamRequest) -> aiohttp.ClientResponse:
        if self._session is None:
            raise RuntimeError(f"upstream {self.name!r} is not open")
        headers: CIMultiDict[str] = CIMultiDict(request.headers)
        headers.update(self._fixed)
        body: Any = request.body
        if isinstance(body, bytes) and len(body) > LARGE_BODY_BYTES:
            headers["Content-Length"] = str(len(body))
            body = _pieces(body)
        return await self._session.request(
            request.method,
            self._url(request.path),
            data=body or None,
            headers=headers,
            allow_redirects=False,
            proxy=self.settings.http_proxy,
        )

    def _url(self, path: str) -> URL:
        url = self._urls.get(path)
        if url is None:
            url = URL(self._base + path, encoded=True)
            if "?" not in path and len(self._urls) < 64:
                self._urls[path] = url
        return url

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
    return str(exc) or type(exc).__name__


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    """A large body in pieces, so that sending it does not hold up the others."""
    view = memoryview(body)
    for start in range(0, len(body), PIECE_BYTES):
        yield bytes(view[start : start + PIECE_BYTES])
