"""aiohttp's low-level server with our own dispatch: a dictionary instead of a router, and JSON for its own errors."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from predawn.proxy.exchange import RequestError
from predawn.proxy.wire.errors import error_body

if TYPE_CHECKING:
    from aiohttp.streams import StreamReader

    from predawn.proxy.access import Identity
    from predawn.proxy.resilience import FirstTry

Handler: TypeAlias = "Callable[[Request], Awaitable[web.StreamResponse]]"
log = logging.getLogger("predawn.http")

IDLE_CONNECTION_S = 75.0
"""A connection without a complete request head is closed after this; so are slow-loris clients."""


HEAD_END = b"\r\n\r\n"
MOST_HEADS = 64
"""Heads of one read that are taken one by one; bodies may be full of what looks like their ends."""
SPOKEN = frozenset({HttpVersion10, HttpVersion11})


class Request(web.BaseRequest):
    """A request; `request["identity"]` and `request.match_info` are set for handlers that need them."""

    ATTRS = web.BaseRequest.ATTRS | frozenset({"match_info"})
    match_info: Mapping[str, str] = MappingProxyType({})

    def check(self) -> None:
        """Raise `RequestError` for what aiohttp lets pass: versions and codings that are not spoken here."""
        version = self._version
        if version not in SPOKEN:
            self._version = HttpVersion11  # that of the answer
            message = f"This server speaks HTTP/1.1, not {version.major}.{version.minor}."
            raise RequestError(505, message, code="http_version_not_supported")
        coding = self._headers.get("Transfer-Encoding")
        if coding is not None and coding.lower() != "chunked":  # to the next reader this body may end elsewhere
            raise RequestError(501, "The only transfer coding that is understood is chunked.", code="invalid_http")

    def take_first_try(self) -> FirstTry | None:
        """What the fast lane tried for this request before it handed it over; given away once."""
        connection = self.protocol
        assert isinstance(connection, Connection)
        first, connection.first_try = connection.first_try, None
        return first

    def admit(self, identity: Identity, match_info: Mapping[str, str]) -> None:
        """Note who asks and what the path's pattern caught."""
        self._state["identity"] = identity
        self.match_info = match_info


class Connection(RequestHandler):
    """One client connection. What aiohttp refuses by itself is answered in the API's own shape."""

    _coming: StreamReader | None = None
    """The body of the last request that came."""
    _last = b""
    """The end of what was read last."""
    first_try: FirstTry | None = None
    """What the fast lane tried for the first request of this connection before it handed it over."""

    def data_received(self, data: bytes) -> None:
        """Read head by head: a bad request does not take those before it with it, which aiohttp then forgets."""
        start, heads = 0, 0
        at = (self._last + data[:3]).find(HEAD_END)  # of one that began with the read before
        end = at + len(HEAD_END) - len(self._last) if at >= 0 else _end_of_head(data, 0)
        while end and heads < MOST_HEADS:
            self._take(data[start:end])
            start, heads = end, heads + 1
            end = _end_of_head(data, start)
        if start < len(data) or not data:  # of nothing it reads on where it had paused
            self._take(data[start:] if start else data)
        self._last = (self._last + data[-3:])[-3:]

    def _take(self, data: bytes) -> None:
        """Let aiohttp read, and tell whoever waits for a body's end that none will come: aiohttp leaves him waiting."""
        super().data_received(data)
        messages = self._messages
        if not messages:
            return
        message, payload = messages[-1]
        if type(message) is _ErrInfo:
            body = messages[-2][1] if len(messages) > 1 else self._coming
            if body is not None and not body.is_eof():
                # whoever reads has been woken for the chunk before, and must wait again to hear of it
                self._loop.call_soon(_spoil, body)
        self._coming = payload

    def connection_lost(self, exc: BaseException | None) -> None:
        first, self.first_try = self.first_try, None
        if first is not None:
            first.drop()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if isinstance(exc, ConnectionError) and (request.transport is None or request.transport.is_closing()):
            raise exc  # the client left, and a write noticed it before anything else did
        told = (message or "The request is not valid HTTP").partition(":")[0].strip()  # behind it stands what was sent
        if status < 500:
            log.info("refused a malformed request: %s", told)
        else:
            log.error("unexpected error", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("part of an answer has been sent already")
        error = RequestError(status, f"{told}.", code="invalid_http") if status < 500 else _internal()
        response = web.Response(
            status=status,
            body=error_body(error, "raw"),
            headers={"Content-Type": "application/json", "Server": "predawn", "x-request-id": "req_none"},
        )
        response.force_close()
        return response


def _end_of_head(data: bytes, start: int) -> int:
    """Where it is in these bytes; 0 if it is not."""
    at = data.find(HEAD_END, start)
    return at + len(HEAD_END) if at >= 0 else 0


def _spoil(body: StreamReader) -> None:
    if not body.is_eof():
        body.set_exception(web.RequestPayloadError("its end cannot be found"))
        body.feed_eof()  # nor does aiohttp wait for the rest of it once the request is answered


def _internal() -> RequestError:
    return RequestError(500, "Predawn failed; its log says why.", type="server_error", code="internal_error")


class HttpServer(web.Server):
    """Hands every request to one function; built on a running loop."""

    def __init__(self, handler: Handler, *, body_limit: int) -> None:
        self._body_limit = body_limit
        self.leaving = False
        """True once each answer is the last of its connection."""
        self._handler_options: dict[str, Any] = {
            "access_log": None,
            "keepalive_timeout": IDLE_CONNECTION_S,
            "logger": log,
            "auto_decompress": False,
        }
        any_handler: Any = handler
        super().__init__(any_handler, request_factory=self._build_request, handler_cancellation=True)

    def _build_request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> Request:
        if self.leaving:
            message = message._replace(should_close=True)
        return Request(message, payload, protocol, writer, task, self._loop, client_max_size=self._body_limit)

    def __call__(self) -> Connection:
        return Connection(self, loop=self._loop, **self._handler_options)
