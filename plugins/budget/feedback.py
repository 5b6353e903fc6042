"""`POST /v1/exchanges/{id}/feedback`: a client says how good an answer was."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from predawn.plugins import RequestError
from predawn.proxy.store_errors import StoreError

if TYPE_CHECKING:
    from aiohttp import web

    from predawn.proxy.http_server import Request

log = logging.getLogger("predawn.budget")
LIMIT_MB = 0.0625


class Feedback:
    """The endpoint. A tenant can only tell of its own exchanges; another's do not exist for it."""

    def __init__(self) -> None:
        self.tell: Callable[[str, str, float], Awaitable[bool]] | None = None
        """Set when the server starts: tenant, exchange and score; false if there is no such exchange."""

    async def post(self, request: Request) -> web.Response:
        from predawn.proxy.service import read_request

        if self.tell is None:
            raise RequestError(503, "The server is starting.", type="server_error", code="not_ready")
        score = read_score(await read_request(request, LIMIT_MB))
        ident = request.match_info["id"]
        try:
            is_known = "\0" not in ident and await self.tell(request["identity"].tenant, ident, score)
        except StoreError as exc:
            log.warning("feedback cannot be taken: %s", exc)
            raise RequestError(
                503, "The store cannot be used now.", type="server_error", code="store_unavailable"
            ) from exc
        if not is_known:
            raise RequestError(404, f"There is no exchange {ident[:128]!r}.", code="exchange_not_found", param="id")
        return _json({"id": ident, "object": "exchange.feedback", "score": score})


def read_score(body: bytes) -> float:
    """`{"score": 0.5}`, or `{"correct": true}`. Raises `RequestError` 400."""
    try:
        told: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise RequestError(400, f"The request body is not valid JSON: {exc}", code="invalid_json") from exc
    if not isinstance(told, dict):
        raise RequestError(400, "The request body must be a JSON object.", code="invalid_json")
    if len(told) != 1 or not told.keys() <= {"score", "correct"}:
        raise RequestError(400, "Say either score, a number from 0 (wrong) to 1 (right), or correct, true or false.")
    correct, score = told.get("correct"), told.get("score")
    if isinstance(correct, bool):
        return float(correct)
    if isinstance(score, (int, float)) and not isinstance(score, bool) and 0.0 <= score <= 1.0:
        return float(score)
    param = next(iter(told))
    raise RequestError(400, "score must be a number from 0 to 1, and correct true or false.", param=param)


def _json(data: dict[str, Any]) -> web.Response:
    from aiohttp import web

    return web.Response(body=msgspec.json.encode(data), content_type="application/json")
