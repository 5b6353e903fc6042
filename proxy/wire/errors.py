"""Errors on the wire: one table, in OpenAI's shape and in Anthropic's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from predawn.proxy.exchange import RequestError

if TYPE_CHECKING:
    from predawn.proxy.exchange import RouteName
    from predawn.proxy.upstreams.base import UpstreamError

_encode = msgspec.json.Encoder().encode

ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}

UPSTREAM_STATUS = {
    "timeout_ttft": (504, "upstream_timeout"),
    "timeout_idle": (504, "upstream_timeout"),
    "connect": (502, "upstream_error"),
    "protocol": (502, "upstream_error"),
    "truncated": (502, "upstream_error"),
    "crashed": (502, "upstream_error"),
    "5xx": (502, "upstream_error"),
    "429": (503, "upstream_unavailable"),
    "breaker": (503, "upstream_unavailable"),
}


def error_object(error: RequestError, route: RouteName) -> dict[str, Any]:
    """The body of an error as the API of `route` has it."""
    if route == "messages":
        kind = ANTHROPIC_TYPES.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": error.message}}
    return {
        "error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code},
    }


def error_body(error: RequestError, route: RouteName) -> bytes:
    """The same, encoded."""
    return _encode(error_object(error, route))


def error_event(error: RequestError, route: RouteName) -> bytes:
    """The same as the last event of a stream that cannot go on."""
    return event_of_error(error_body(error, route), route)


def event_of_error(body: bytes, route: RouteName) -> bytes:
    """The body of an error, an upstream's own perhaps, as the last event of a stream."""
    name = b"event: error\n" if route in ("messages", "responses") else b""
    return name + b"data: " + b" ".join(body.splitlines()) + b"\n\n"


def from_upstream(error: UpstreamError, *, retried: bool) -> RequestError:
    """What a client is told of an upstream that failed; `retried` keeps its SDK from multiplying our own retries."""
    status, code = UPSTREAM_STATUS[error.reason]
    return RequestError(
        status,
        str(error),
        type="server_error",
        code=code,
        headers={"x-should-retry": "false"} if retried else {},
    )


def plugin_failed(plugin: str, hook: str) -> RequestError:
    """A plugin raised where its failure must reach the client; what it raised goes to the log only."""
    return RequestError(502, f"plugin {plugin!r} failed in {hook}", type="server_error", code="plugin_error")
