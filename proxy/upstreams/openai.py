"""An upstream that speaks the API natively: bytes out, bytes in, over pooled keep-alive connections."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from multidict import CIMultiDict
from yarl import URL

from predawn.proxy.exchange import Chunk, Reply, RouteName
from predawn.proxy.tasks import Tasks
from predawn.proxy.upstreams.base import UpstreamError, UpstreamRequest
from predawn.proxy.upstreams.pool import Origin, Pool
from predawn.proxy.upstreams.source import AnswerSource
from predawn.proxy.upstreams.upload import in_pieces, send_pieces
from predawn.proxy.wire.fold import whole_body
from predawn.proxy.wire.headers import to_client
from predawn.proxy.wire.sse import split_events

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from predawn.proxy.clock import Clock
    from predawn.proxy.settings import UpstreamSettings
    from predawn.proxy.upstreams.answer_head import AnswerHead
    from predawn.proxy.upstreams.connection import UpstreamConnection
    from predawn.proxy.upstreams.proxied import ProxiedClient

LARGE_BODY_BYTES = 1 << 20
"""Larger bodies are sent piece by piece."""
REDIRECTS = frozenset({301, 302, 303, 307, 308})
REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that may be sent again when a connection that was used before closes without an answer (RFC 9112 §9.3.1)."""
TRIES = 3


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
        self.fixed_lines = _lines(self._fixed)
        """Header lines that each request has."""
        self.overrides = frozenset(name.lower() for name in self._fixed) if settings.headers else frozenset[str]()
        """Headers of the client, in lower case, whose place is taken by the settings'."""
        self.pool: Pool | None = None
        """Connections, once it is open; `None` with an HTTP proxy in between."""
        self._proxied: ProxiedClient | None = None
        self._uploads = Tasks()

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
        settings, timeouts = self.settings, self.settings.timeouts
        base = URL(self._base)  # not `encoded`: names in other scripts have a form of their own in DNS
        tls = _tls(settings) if base.scheme == "https" else None
        if settings.http_proxy is not None:
            from predawn.proxy.upstreams.proxied import ProxiedClient

            self._proxied = ProxiedClient(settings, tls)
            return
        assert base.raw_host is not None
        assert base.port is not None
        host_line = f"Host: {base.host_port_subcomponent}\r\n".encode("ascii")
        self.pool = Pool(
            self.name,
            Origin(base.raw_host, base.port, host_line, tls),
            limit=settings.max_connections,
            connect_s=timeouts.connect_s,
            first_byte_s=timeouts.first_byte_s,
            idle_s=timeouts.idle_s,
        )

    async def aclose(self) -> None:
        if self.pool is not None:
            await self.pool.aclose()
            self.pool = None
        if self._proxied is not None:
            await self._proxied.aclose()
            self._proxied = None
        await self._uploads.cancel()

    # -- requests

    def target(self, path: str) -> str:
        """What the request line names for a path below the base URL."""
        return self._path + path

    def head_around_length(self, path: str, headers: Mapping[str, str]) -> tuple[bytes, bytes]:
        """The head of a POST before the digits of its body's length, and after them."""
        assert self.pool is not None
        before = f"POST {self._path}{path} HTTP/1.1\r\n".encode("utf-8", "surrogateescape")
        return (
            b"%b%bContent-Length: " % (before, _lines(self._travelling(headers))),
            b"\r\n%b%b\r\n" % (self.fixed_lines, self.pool.host_line),
        )

    def _travelling(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        if not self.overrides:
            return headers
        return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in self.overrides)

    def _head(self, request: UpstreamRequest, pool: Pool, framing: str) -> bytes:
        lines = "".join([f"{name}: {value}\r\n" for name, value in self._travelling(request.headers).items()])
        text = f"{request.method} {self._path}{request.path} HTTP/1.1\r\n{lines}{framing}"
        return b"%b%b%b\r\n" % (text.encode("utf-8", "surrogateescape"), self.fixed_lines, pool.host_line)

    # -- answers

    async def send(self, request: UpstreamRequest) -> Reply:
        if self._proxied is not None:
            return await self._send_proxied(self._proxied, request)
        if self.pool is None:
            raise RuntimeError(f"upstream {self.name!r} is not open")
        body = request.body
        if isinstance(body, bytes) and len(body) <= LARGE_BODY_BYTES:
            source = await self._ask(self.pool, request, body)
        else:
            source = await self._ask_piece_by_piece(self.pool, request, body)
        return await self._reply(source)

    async def _ask(self, pool: Pool, request: UpstreamRequest, body: bytes) -> AnswerSource:
        """The answer, once its head is there."""
        head = self._head(request, pool, f"Content-Length: {len(body)}\r\n")
        tries = TRIES if request.method in REPEATABLE else 1
        while True:
            connection = pool.take() or await pool.acquire()
            may_be_stale = connection.is_used
            source = AnswerSource(connection, self.name, pool.idle_s)
            connection.ask(source, head, body, is_head=request.method == "HEAD")
            tries -= 1
            try:
                await _begin(source)
            except UpstreamError as exc:
                if tries and may_be_stale and exc.reason == "connect":
                    continue
                raise
            return source

    async def _ask_piece_by_piece(
        self, pool: Pool, request: UpstreamRequest, body: bytes | AsyncIterator[bytes]
    ) -> AnswerSource:
        length: int | None = None
        framing = ""
        if isinstance(body, bytes):
            length = len(body)
            framing = f"Content-Length: {length}\r\n"
            body = in_pieces(body)
        elif (announced := request.headers.get("Content-Length")) is not None:
            length = int(announced)
        else:
            framing = "Transfer-Encoding: chunked\r\n"
        head = self._head(request, pool, framing)
        connection = pool.take() or await pool.acquire()
        source = AnswerSource(connection, self.name, pool.idle_s)
        connection.ask(source, head, b"", is_head=request.method == "HEAD")
        connection.upload = self._uploads.spawn(send_pieces(connection, body, length), "upload")
        await _begin(source)
        return source

    def adopt(self, connection: UpstreamConnection, head: AnswerHead) -> OpenedAnswer:
        """Take over an answer from the receiver that just got its head."""
        return OpenedAnswer(self, AnswerSource.adopt(connection, head, self.name, self.settings.timeouts.idle_s))

    async def _reply(self, source: AnswerSource) -> Reply:
        """The reply once its first bytes are there; the connection is closed if they do not come."""
        head = source.head
        assert head is not None
        is_handed_over = False
        try:
            self._refuse_redirect(head.status)
            split = whole_body
            if head.is_events:
                split = split_events
                await source.begin(with_body=True)
            is_handed_over = True
            return Reply(head.status, to_client(_texts(head.headers)), source=source, split=split)
        finally:
            if not is_handed_over:
                source.abort()

    def _refuse_redirect(self, status: int) -> None:
        if status in REDIRECTS:
            raise UpstreamError(self.name, "protocol", f"it answered {status}, and redirects are not followed")

    async def _send_proxied(self, client: ProxiedClient, request: UpstreamRequest) -> Reply:
        headers = CIMultiDict(self._travelling(request.headers))
        headers.update(self._fixed)
        status, received, source = await client.send(request.method, self._base + request.path, headers, request.body)
        is_handed_over = False
        try:
            self._refuse_redirect(status)
            split = whole_body
            if received.get("Content-Type", "").startswith("text/event-stream"):
                split = split_events
                await source.begin()
            is_handed_over = True
            return Reply(status, to_client(received), source=source, split=split)
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


class OpenedAnswer:
    """An answer whose head is there, on its way to become a reply."""

    __slots__ = ("_upstream", "source")

    def __init__(self, upstream: OpenAIUpstream, source: AnswerSource) -> None:
        self._upstream = upstream
        self.source = source

    async def reply(self) -> Reply:
        """The reply, once its first bytes are there if it is a stream. Raises `UpstreamError`."""
        return await self._upstream._reply(self.source)  # noqa: SLF001 - a part of it, kept for later

    def abort(self) -> None:
        """Nobody wants it."""
        self.source.abort()


async def _begin(source: AnswerSource) -> None:
    """Wait for the head; the connection is closed if that fails or nobody waits any more."""
    has_begun = False
    try:
        await source.begin()
        has_begun = True
    finally:
        if not has_begun:
            source.abort()


def _model_ids(body: Chunk) -> list[str]:
    listed = (body.data or {}).get("data")
    if not isinstance(listed, list):
        return []
    return [item["id"] for item in listed if isinstance(item, dict) and isinstance(item.get("id"), str)]


def _lines(headers: Mapping[str, str]) -> bytes:
    """Headers as they stand on the wire. Names and values have been checked where they came from."""
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()]).encode("utf-8", "surrogateescape")


def _texts(headers: list[tuple[bytes, bytes]]) -> CIMultiDict[str]:
    return CIMultiDict(
        [(name.decode("ascii"), value.decode("utf-8", "surrogateescape").strip(" \t")) for name, value in headers]
    )


def _tls(settings: UpstreamSettings) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if not settings.verify_tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif settings.ca_file is not None:
        context.load_verify_locations(cafile=settings.ca_file)
    return context
