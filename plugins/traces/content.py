"""What was said, in the shape of `gen_ai.input.messages` and `gen_ai.output.messages`; only with `record_content`."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec

from predawn.plugins import RequestError
from predawn.proxy.wire.transcript import Transcript

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from predawn.plugins import Chunk, Exchange
    from predawn.plugins.traces.otlp import Value
    from predawn.proxy.exchange import RouteName

STATE = "traces.content"
_encode = msgspec.json.Encoder(enc_hook=repr).encode
_THOUGHTS = frozenset({
    "reasoning", "reasoning_content", "reasoning_details.text", "reasoning_details.summary", "thinking",
    "reasoning_text", "reasoning_summary_text",
})  # fmt: skip
_SPEECH = frozenset({"content", "text", "output_text", "refusal", "transcript", "audio.transcript"})
_ENDS: Final = {
    "tool_calls": "tool_call", "function_call": "tool_call", "tool_use": "tool_call", "end_turn": "stop",
    "stop_sequence": "stop", "completed": "stop", "max_tokens": "length", "incomplete": "length",
    "refusal": "content_filter", "failed": "error",
}  # fmt: skip
"""The dialects' words for how an answer ended, in those of the conventions."""
LONGEST_END: Final = 40
MOST_CHOICES: Final = 1024
_INSTRUCTIONS: Final[Mapping[RouteName, str]] = {"messages": "system", "responses": "instructions"}
"""Where they are not among the messages."""


class Content:
    """Collects the texts of one answer; as a chunk filter it lets everything pass."""

    __slots__ = ("_ends", "_limit", "_reply", "_route")

    def __init__(self, route: RouteName, limit: int) -> None:
        self._limit = limit
        self._route: RouteName = route
        self._ends: dict[int, str] = {}
        self._reply = Transcript(route, limit)

    def __call__(self, chunk: Chunk) -> Chunk:
        data = chunk.data
        if data is not None:
            self._reply.read(data)
            for choice, end in _ends(data, self._route):
                if len(self._ends) < MOST_CHOICES:
                    self._ends[choice] = _ENDS.get(end, end[:LONGEST_END])
        return chunk

    def attributes(self, exchange: Exchange) -> dict[str, Value]:
        """Both sides as JSON; a request that is too long or cannot be read is left out."""
        found: dict[str, Value] = {}
        with suppress(RequestError, TypeError, ValueError, RecursionError):  # what is no JSON the upstream judges
            found |= _input(exchange, self._limit)
        messages: dict[int, list[dict[str, Any]]] = {}
        for lane in self._reply.lanes:
            if lane["text"]:
                choice = lane["group"] if self._route in ("chat", "completions") else 0
                messages.setdefault(choice, []).append(_said(lane))
        if messages:
            told = [
                {"role": "assistant", "parts": parts, "finish_reason": self._ends.get(choice, "error")}
                for choice, parts in sorted(messages.items())
            ]
            found["gen_ai.output.messages"] = _encode(told).decode()
        return found


def _ends(data: Mapping[str, Any], route: RouteName) -> Iterator[tuple[int, str]]:
    """How choices ended, if the chunk says so."""
    if route in ("chat", "completions"):
        choices = data.get("choices")
        for position, choice in enumerate(choices if isinstance(choices, list) else []):
            if isinstance(choice, dict) and isinstance(end := choice.get("finish_reason"), str):
                index = choice.get("index")
                yield index if isinstance(index, int) else position, end
        return
    member, inner = ("stop_reason", "delta") if route == "messages" else ("status", "response")
    for owner in (data, data.get(inner)):
        if isinstance(owner, dict) and isinstance(end := owner.get(member), str):
            yield 0, end


def _said(lane: Mapping[str, Any]) -> dict[str, Any]:
    """A text of the answer; what is neither speech nor thought, such as a call's arguments, under its own name."""
    kind = lane["kind"]
    if kind in _THOUGHTS:
        kind = "reasoning"
    elif kind in _SPEECH:
        kind = "text"
    return {"type": kind, "content": lane["text"]}


def _input(exchange: Exchange, limit: int) -> dict[str, Value]:
    if len(exchange.body) > limit:
        return {}
    request = exchange.request
    messages = request.get("messages")
    if isinstance(messages, list):
        told = [_message(message) for message in messages if isinstance(message, dict)]
    else:
        told = [{"role": "user", "parts": [_part(request.get("input", request.get("prompt")))]}]
    found: dict[str, Value] = {"gen_ai.input.messages": _encode(told).decode()}
    if instructions := request.get(_INSTRUCTIONS.get(exchange.route, "")):
        parts = instructions if isinstance(instructions, list) else [instructions]
        found["gen_ai.system_instructions"] = _encode([_part(one) for one in parts]).decode()
    return found if sum(len(str(text)) for text in found.values()) <= 2 * limit else {}


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
