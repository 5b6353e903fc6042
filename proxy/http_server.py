"""aiohttp's low-level server with our own dispatch: a dictionary instead of a router, and JSON for its own errors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from predawn.proxy.exchange import RequestError
from predawn.proxy.wire.errors import error_body

if TYPE_CHECKING:
    from predawn.proxy.access import Identity

Handler: TypeAlias = "Callable[[Request], Awaitable[web.StreamResponse]]"
log = logging.getLogger("predawn.http")

IDLE_CONNECTION_S = 75.0
"""A connection without a complete request head is closed after this; so are slow-loris clients."""


class Request(web.BaseRequest):
    """A request; `request["identity"]` and `request.match_info` are set for handlers that need them."""

    ATTRS = web.BaseRequest.ATTRS | frozenset({"match_info"})
    match_info: Mapping[str, str] = MappingProxyType({})

    def admit(self, identity: Identity, match_info: Mapping[str, str]) -> None:
        """Note who asks and what the path's pattern caught."""
        self._state["identity"] = identity
        self.match_info = match_info


class Connection(RequestHandler):
    """One client connection. What aiohttp refuses by itself is answered in the API's own shape."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status < 500:
            log.info("refused a malformed request: %s", message or type(exc).__name__)
        else:
            log.error("unexpected error", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("part of an answer has been sent already")
        told = (message or "The request is not valid HTTP.").strip().partition("\n")[0]
        error = RequestError(status, told, code="invalid_http") if status < 500 else _internal()
        response = web.Response(
            status=status,
            body=error_body(error, "raw"),
            headers={"Content-Type": "application/json", "Server": "predawn", "x-request-id": "req_none"},
        )
        response.force_close()
        return response


def _internal() -> RequestError:
    return RequestError(500, "Predawn failed; its log says why.", type="server_error", code="internal_error")


class HttpServer(web.Server):
    """Hands every request to one function; built on a running loop."""

    def __init__(self, handler: Handler, *, body_limit: int) -> None:
        self._body_limit = body_limit
        self._handler_options: dict[str, Any] = {
            "access_log": None,
            "keepalive_timeout": IDLE_CONNECTION_S,
            "logger": log,
            "auto_decompress": False,
        }
        any_handler: Any = handler
        super().__init__(any_handler, request_factory=self._build_request, handler_cancellation=True)

    def _build_request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> Request:
        return Request(message, payload, protocol, writer, task, self._loop, client_max_size=self._body_limit)

    def __call__(self) -> RequestHandler:
        return Connection(self, loop=self._loop, **self._handler_options)


async def listen(server: HttpServer, host: str, port: int, *, reuse_port: bool = False) -> tuple[asyncio.Server, int]:
    """Start listening; returns the socket server and the port it got. Raises `OSError` naming the address."""
    loop = asyncio.get_running_loop()
    try:
        sockets = await loop.create_server(server, host, port, backlog=4096, reuse_port=reuse_port or None)
    except OSError as exc:
        raise OSError(exc.errno, f"cannot listen on {host}:{port}: {exc.strerror or exc}") from exc
    return sockets, int(sockets.sockets[0].getsockname()[1])
