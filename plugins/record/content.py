"""What was said: the request as the upstream saw it, and the reply as the client got it."""

from __future__ import annotations

from typing import Any

import msgspec

from predawn.plugins import Chunk, Exchange
from predawn.proxy.exchange import RouteName
from predawn.proxy.wire.text import Lane, texts

STATE = "record.content"
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Content:
    """Collects the texts of one answer, lane by lane; as a chunk filter it lets everything pass."""

    __slots__ = ("_limit", "_reply", "_request", "_route", "_size", "_whole")

    def __init__(self, route: RouteName, limit: int) -> None:
        self._route: RouteName = route
        self._limit = limit
        self._size = 0
        self._request: bytes | None = None
        self._reply: dict[Lane, list[str]] = {}
        self._whole = True

    def __call__(self, chunk: Chunk) -> Chunk:
        data = chunk.data
        if data is not None:
            for span in texts(data, self._route):
                self._add(span.lane, span.text, whole=span.whole)
        return chunk

    def _add(self, lane: Lane, text: str, *, whole: bool) -> None:
        pieces = self._reply.setdefault(lane, [])
        if whole:
            self._size -= sum(map(len, pieces))
            pieces.clear()
        room = self._limit - self._size
        if len(text) > room:
            self._whole = False
            text = text[: max(room, 0)]
        self._size += len(text)
        pieces.append(text)

    def close(self, exchange: Exchange) -> None:
        """Take the request as plugins left it, and let the exchange go."""
        body = exchange.body
        if exchange.edited:
            body = _encode(dict(exchange.request))
        if len(body) <= self._limit:
            self._request = body
        else:
            self._whole = False

    def encoded(self) -> str:
        """The JSON text of the column `content`."""
        return _encode(
            {
                "complete": self._whole,
                "request": self._decoded_request(),
                "reply": [
                    {"group": lane.group, "kind": lane.kind, "part": lane.part, "text": "".join(pieces)}
                    for lane, pieces in self._reply.items()
                ],
            }
        ).decode()

    def _decoded_request(self) -> Any:
        if self._request is None:
            return None
        try:
            request = _decode(self._request)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return None
        if isinstance(request, dict):
            request.pop("predawn", None)
        return request
