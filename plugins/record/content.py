"""What was said: the request as the upstream saw it, and the reply as the client got it."""

from __future__ import annotations

from typing import Any

import msgspec

from predawn.plugins import Chunk, Exchange
from predawn.proxy.exchange import RouteName
from predawn.proxy.wire.transcript import Transcript

STATE = "record.content"
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Content:
    """Collects the texts of one answer; as a chunk filter it lets everything pass."""

    __slots__ = ("_limit", "_reply", "_request")

    def __init__(self, route: RouteName, limit: int) -> None:
        self._limit = limit
        self._reply = Transcript(route, limit)
        self._request: bytes | None = None

    def __call__(self, chunk: Chunk) -> Chunk:
        data = chunk.data
        if data is not None:
            self._reply.read(data)
        return chunk

    def close(self, exchange: Exchange) -> None:
        """Take the request as plugins left it, and let the exchange go."""
        body = _encode(dict(exchange.request)) if exchange.edited else exchange.body
        self._request = body if len(body) <= self._limit else None

    def encoded(self) -> str:
        """The JSON text of the column `content`."""
        complete = self._reply.complete and self._request is not None
        content = {"complete": complete, "request": self._decoded_request(), "reply": self._reply.lanes}
        return _encode(content).decode()

    def _decoded_request(self) -> Any:
        try:
            request = _decode(self._request or b"null")
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return None
        if isinstance(request, dict):
            request.pop("predawn", None)
        return request
