"""From a request's method and path to the part that answers it. The only place that turns exceptions into responses."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from aiohttp import web

from predawn.proxy.api import models, openapi, ops, raw
from predawn.proxy.exchange import RequestError, RouteName
from predawn.proxy.live.endpoints import LivePage
from predawn.proxy.service import ROUTES, Route
from predawn.proxy.wire.errors import error_body
from predawn.proxy.wire.headers import request_id

if TYPE_CHECKING:
    from predawn.proxy.generation import Generation
    from predawn.proxy.http_server import Request
    from predawn.proxy.metrics import Metrics

log = logging.getLogger("predawn.app")


class App:
    """The API's port and the admin port of one process; `generation` is replaced by a reload."""

    def __init__(self, generation: Generation, metrics: Metrics, *, worker: int = 0) -> None:
        self.generation = generation
        self.retiring: set[Generation] = set()
        """Earlier generations that still have requests to finish."""
        self.metrics = metrics
        self.is_ready = True
        self.refuses = False
        """True once a shutdown has gone so far that new requests are turned away."""
        self.leaving = False
        """True once another process serves in place of this one, which gives each connection one last answer."""
        self.live = LivePage(self, worker=worker)
        self._routes: dict[str, Route] = {f"/v1{route.path}": route for route in ROUTES}

    @property
    def generations(self) -> tuple[Generation, ...]:
        """All that are open: those retiring, then the one in force."""
        return (*self.retiring, self.generation)

    async def handle(self, request: Request) -> web.StreamResponse:
        """Answer a request on the API's port."""
        route = self._routes.get(request.path)
        name: RouteName = route.name if route is not None else "raw"
        ident = request_id(request.headers.get("X-Request-ID"))
        try:
            request.check()
            if self.refuses:
                raise shutting_down()
            if route is not None and request.method == "POST":
                return await self.generation.service.serve(request, route, ident)
            response = await self._other(request, ident)
            if not response.prepared:
                response.headers.setdefault("x-request-id", ident)
                response.headers["Server"] = "predawn"
            return response
        except RequestError as exc:
            return refusal(exc, name, ident)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("unexpected error", extra={"request_id": ident})
            message = f"Predawn failed; its log says why under {ident}."
            return refusal(RequestError(500, message, type="server_error", code="internal_error"), name, ident)

    async def _other(self, request: Request, ident: str) -> web.StreamResponse:
        path, method = request.path, request.method
        if path in self._routes:
            raise _wrong_method(path, "POST")
        if (answer := self._operations(path)) is not None:
            if method not in ("GET", "HEAD"):
                raise _wrong_method(path, "GET, HEAD")
            return answer
        generation = self.generation
        if not path.startswith("/v1/"):
            raise RequestError(404, f"There is no {path[:200]} here; the API is below /v1.", code="unknown_url")
        identity = generation.service.access.identify(request.headers, request.remote or "")
        if path == "/v1/models":
            if method != "GET":
                raise _wrong_method(path, "GET")
            return await models.list_models(generation.service, identity)
        if path.startswith("/v1/models/") and method == "GET":
            return await models.get_model(generation.service, identity, path.removeprefix("/v1/models/"))
        others: list[str] = []
        for plugin_route in generation.routes:
            match = plugin_route.pattern.fullmatch(path)
            if match is None:
                continue
            if plugin_route.method == method:
                request.admit(identity, match.groupdict())
                return await plugin_route.handler(request)
            others.append(plugin_route.method)
        if others:
            raise _wrong_method(path, ", ".join(others))
        stations = list(generation.stations.values())
        return await raw.relay(generation.service, stations, request, identity, ident)

    def _operations(self, path: str) -> web.Response | None:
        if path == "/health":
            return ops.health(self.generation.engines)
        if path == "/ready":
            return ops.ready(self.generation.engines, is_ready=self.is_ready and self.generation.can_answer)
        if path == "/version":
            return ops.build()
        if path == "/openapi.json":
            return openapi.document()
        return None

    async def handle_admin(self, request: Request) -> web.StreamResponse:
        """Answer a request on the admin port."""
        if self.live.serves(request.path):
            try:
                return await self.live.handle(request)
            except RequestError as exc:
                return refusal(exc, "raw", "req_admin")
        if request.method not in ("GET", "HEAD"):
            return refusal(_wrong_method(request.path, "GET"), "raw", "req_admin")
        if request.path == "/metrics":
            return await ops.scrape(request, self.metrics)
        if (answer := self._operations(request.path)) is not None:
            return answer
        error = RequestError(404, "The admin port has /, /metrics, /health, /ready and /version.", code="unknown_url")
        return refusal(error, "raw", "req_admin")


def refusal(error: RequestError, route: RouteName, ident: str) -> web.Response:
    """An error as a response, in the shape of the endpoint's API."""
    headers = {"Content-Type": "application/json", "Server": "predawn", **error.headers, "x-request-id": ident}
    response = web.Response(status=error.status, body=error_body(error, route), headers=headers)
    if error.status in (408, 413, 505) or error.code in ("shutting_down", "invalid_http"):
        response.force_close()  # what the client still sends is not read
    return response


def _wrong_method(path: str, allowed: str) -> RequestError:
    return RequestError(405, f"{path[:200]} takes {allowed}.", code="method_not_allowed", headers={"Allow": allowed})


def shutting_down() -> RequestError:
    """What clients are told that come, or are still there, too late."""
    return RequestError(503, "The server is shutting down.", type="server_error", code="shutting_down")
