"""What was said, in the shape of `gen_ai.input.messages` and `gen_ai.output.messages`; only with `record_content`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from predawn.plugins import RequestError
from predawn.proxy.wire.transcript import Transcript

if TYPE_CHECKING:
    from collections.abc import Mapping

    from predawn.plugins import Chunk, Exchange
    from predawn.plugins.traces.otlp import Value
    from predawn.proxy.exchange import RouteName

STATE = "traces.content"
_encode = msgspec.json.Encoder(enc_hook=repr).encode
_THOUGHTS = frozenset({"reasoning", "reasoning_content", "thinking", "reasoning_text", "reasoning_summary_text"})


class Content:
    """Collects the texts of one answer; as a chunk filter it lets everything pass."""

    __slots__ = ("_limit", "_reply")

    def __init__(self, route: RouteName, limit: int) -> None:
        self._limit = limit
        self._reply = Transcript(route, limit)

    def __call__(self, chunk: Chunk) -> Chunk:
        data = chunk.data
        if data is not None:
            self._reply.read(data)
        return chunk

    def attributes(self, exchange: Exchange) -> dict[str, Value]:
        """Both sides as JSON; a request that is too long or cannot be read is left out."""
        found: dict[str, Value] = {}
        try:
            said = _input(exchange, self._limit)
        except (RequestError, TypeError, ValueError, RecursionError):  # what is no JSON is for the upstream to judge
            said = None
        if said is not None:
            found["gen_ai.input.messages"] = said
        parts = [
            {"type": "reasoning" if lane["kind"] in _THOUGHTS else "text", "content": lane["text"]}
            for lane in self._reply.lanes
            if lane["text"]
        ]
        if parts:
            found["gen_ai.output.messages"] = _encode([{"role": "assistant", "parts": parts}]).decode()
        return found


def _input(exchange: Exchange, limit: int) -> str | None:
    if len(exchange.body) > limit:
        return None
    request = exchange.request
    messages = request.get("messages")
    if isinstance(messages, list):
        told = [_message(message) for message in messages if isinstance(message, dict)]
    else:
        told = [{"role": "user", "parts": [_part(request.get("input", request.get("prompt")))]}]
    text = _encode(told).decode()
    return text if len(text) <= 2 * limit else None


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    parts = [_part(one) for one in (content if isinstance(content, list) else [content]) if one is not None]
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else []:
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            told = {"type": "tool_call", "id": call.get("id"), "name": function.get("name")}
            parts.append({**told, "arguments": function.get("arguments")})
    return {"role": str(message.get("role", "user")), "parts": parts}


def _part(content: Any) -> dict[str, Any]:
    if isinstance(content, str):
        return {"type": "text", "content": content}
    if isinstance(content, dict) and isinstance(content.get("text"), str):
        return {"type": "text", "content": content["text"]}
    return {"type": "generic", "content": content}
