"""Any other `/v1/*` path, relayed as bytes where an upstream's settings allow it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import perf_counter
from typing import TYPE_CHECKING
from urllib.parse import unquote

from aiohttp import web
from multidict import CIMultiDict

from predawn.proxy.control import read_control
from predawn.proxy.exchange import Call, Exchange, Reply, RequestError
from predawn.proxy.problems import nearest
from predawn.proxy.relay import StreamSink, WholeEvents, pump_bytes, read_body
from predawn.proxy.service import ROUTES, call_for_body, read_request
from predawn.proxy.stream_meter import StreamMeter
from predawn.proxy.upstreams.base import UpstreamError, UpstreamRequest
from predawn.proxy.wire.errors import error_event, from_upstream
from predawn.proxy.wire.headers import to_upstream

if TYPE_CHECKING:
    from predawn.proxy.access import Identity
    from predawn.proxy.http_server import Request
    from predawn.proxy.resilience import Station
    from predawn.proxy.service import Service

BUFFERED_BYTES = 1 << 20


async def relay(
    service: Service, stations: list[Station], request: Request, identity: Identity, ident: str
) -> web.StreamResponse:
    """Relay a request to the upstream that allows its path. Raises `RequestError`."""
    raw_path = request.rel_url.raw_path.removeprefix("/v1")
    station = _choose(stations, request, raw_path)
    if identity.key is not None and identity.key.models is not None:
        message = "This API key is limited to certain models, so it may not use other endpoints."
        raise RequestError(403, message, type="permission_error", code="endpoint_not_allowed")
    query = request.rel_url.raw_query_string
    control: list[tuple[str, str]] = []
    exchange = Exchange(
        b"",
        id=ident,
        route="raw",
        path=f"{raw_path}?{query}" if query else raw_path,
        tenant=identity.tenant,
        key_id=identity.key_id,
        headers=to_upstream(request.headers, control=control),
        control=read_control(control, None),
        arrived_at=service.tools.clock.now(),
        started=perf_counter(),
    )
    exchange.upstream = station.settings.name
    lease = await service.access.reserve(identity, None, 0, 0)
    service.relays += 1
    try:
        return await _answer(service, station, request, exchange)
    except RequestError as exc:
        exchange.error, exchange.status = exc.message, exc.status
        if exchange.outcome == "ok":
            exchange.outcome = "client_error"
        raise
    finally:
        service.relays -= 1
        await exchange.close()
        exchange.ledger.total_s = perf_counter() - exchange.started
        lease.settle(0, 0, 0, 0.0)
        metrics, seconds = service.tools.metrics, exchange.ledger.total_s
        metrics.traffic("raw", "", exchange.upstream, stream=False).observe(
            code=exchange.status or 500, total_s=seconds, overhead_s=0.0
        )
        metrics.tenant(exchange.tenant).observe(exchange.status or 500, seconds)
        metrics.during.value += seconds
        service.tools.observers.done(exchange)


def _choose(stations: list[Station], request: Request, path: str) -> Station:
    plain = unquote(path).replace("\\", "/")
    if "%" in plain or any(part in ("..", ".") for part in plain.split("/")):
        raise RequestError(400, "The path may not contain '.', '..' or doubly encoded parts.", code="invalid_path")
    wanted = request.headers.get("x-predawn-upstream")
    for station in stations:
        if wanted is not None and station.settings.name != wanted:
            continue
        allowed = station.settings.relay
        if allowed is True or (allowed is not False and any(_below(path, prefix) for prefix in allowed)):
            return station
    known = [f"/v1{route.path}" for route in ROUTES]
    hint = nearest(f"/v1{path}", known)
    message = (
        f"There is no endpoint {request.method} /v1{path[:200]}{hint}. Other paths are relayed if `relay` allows it."
    )
    raise RequestError(404, message, code="unknown_url")


def _below(path: str, prefix: str) -> bool:
    prefix = prefix.rstrip("/")
    return path == prefix or path.startswith(prefix + "/")


async def _answer(service: Service, station: Station, request: Request, exchange: Exchange) -> web.StreamResponse:
    headers = CIMultiDict(exchange.headers)
    body: bytes | AsyncIterator[bytes]
    length = request.content_length
    limit_mb = service.settings.server.body_limit_mb
    if not request.body_exists:
        body = b""
    elif length is None or length <= BUFFERED_BYTES or length > limit_mb * (1 << 20):
        body = await read_request(request, limit_mb)  # which refuses what is too large
    else:
        headers["Content-Length"] = str(length)
        call_for_body(request)
        body = request.content.iter_any()
    call = Call(exchange.upstream, "")
    exchange.ledger.calls.append(call)
    outgoing = UpstreamRequest("raw", request.method, exchange.path, "", body, headers, stream=False, decoded=dict)
    sink = StreamSink(request, exchange.id, station.settings.timeouts.idle_s)
    try:
        reply = await station.upstream.send(outgoing)
        exchange.status = call.status = reply.status
        assert reply.source is not None
        exchange.scope.push_async_callback(reply.source.aclose)
        response = await _pass_on(reply, sink, exchange)
    except UpstreamError as exc:
        return _failed(service, exc, exchange, call, sink)
    except (ConnectionError, asyncio.CancelledError):
        exchange.outcome, exchange.status, call.outcome = "client_closed", 499, "cancelled"
        raise
    call.outcome = "ok"
    return response


async def _pass_on(reply: Reply, sink: StreamSink, exchange: Exchange) -> web.StreamResponse:
    assert reply.source is not None
    headers = CIMultiDict(reply.headers)
    if headers.get("Content-Type", "").startswith("application/json") or reply.status in (204, 304):
        body = await read_body(reply.source, exchange.upstream)
        headers.update({"x-request-id": exchange.id, "Server": "predawn"})
        return web.Response(body=body, status=reply.status, headers=headers)
    await sink.open(reply.status, headers)
    gate = WholeEvents() if reply.is_stream else None
    await pump_bytes(reply.source, sink, StreamMeter(), gate, exchange.upstream)
    return await sink.finish()


def _failed(
    service: Service, exc: UpstreamError, exchange: Exchange, call: Call, sink: StreamSink
) -> web.StreamResponse:
    service.tools.metrics.upstream_error(exc.upstream, exc.reason)
    error = from_upstream(exc, retried=False)
    call.outcome = exc.reason
    exchange.outcome, exchange.error, exchange.status = "upstream_error", error.message, error.status
    if sink.opened:
        return sink.break_off(error_event(error, "raw"))
    raise error from exc
