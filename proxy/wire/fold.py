"""One answer, two shapes: a stream of chunks and a whole body, each turned into the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from predawn.proxy.exchange import ByteSource, Chunk, RouteName
from predawn.proxy.wire.patch import patch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class BodyChunk(Chunk):
    """The whole body of a reply that does not stream, shown to plugins in the shape of a stream."""

    __slots__ = ("_body",)

    def __init__(self, body: bytes) -> None:
        super().__init__(body, is_last=True)
        self._body: dict[str, Any] | None = None

    @property
    def body(self) -> dict[str, Any]:
        """The body as it came; empty if it is not a JSON object."""
        if self._body is None:
            try:
                decoded = _decode(self.raw)
            except (msgspec.DecodeError, RecursionError):
                decoded = None
            self._body = decoded if isinstance(decoded, dict) else {}
        return self._body

    @property
    def data(self) -> dict[str, Any] | None:
        if self._data is None and self.body:
            self._data = message_to_delta(self.body)
        return self._data or None


def message_to_delta(body: dict[str, Any]) -> dict[str, Any]:
    """Show `choices[i].message` as `choices[i].delta`; nothing else changes."""
    return _rename_in_choices(body, "message", "delta")


def delta_to_message(data: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `message_to_delta`."""
    return _rename_in_choices(data, "delta", "message")


def _rename_in_choices(body: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    choices = body.get("choices")
    if not isinstance(choices, list) or not any(isinstance(choice, dict) and old in choice for choice in choices):
        return body
    renamed = [
        {(new if key == old else key): value for key, value in choice.items()} if isinstance(choice, dict) else choice
        for choice in choices
    ]
    return {**body, "choices": renamed}


async def whole_body(source: ByteSource) -> AsyncIterator[Chunk]:
    """The body of a reply that does not stream, as its only chunk."""
    yield BodyChunk(b"".join([data async for data in source]))


def body_of(chunks: Sequence[Chunk], route: RouteName) -> bytes:
    """The body for a client that does not stream.

    An unchanged body leaves byte for byte; of a changed one only what a plugin changed is encoded again; a stream is
    folded. Raises `ValueError` if the chunks are no answer.
    """
    if len(chunks) == 1:
        chunk = chunks[0]
        origin = chunk
        while origin.origin is not None:
            origin = origin.origin
        if isinstance(origin, BodyChunk):
            if chunk is origin:
                return origin.raw
            changed = delta_to_message(chunk.data or {}) if route == "chat" else chunk.data
            return patch(origin.raw, origin.body, changed)
    return _encode(fold([chunk.data for chunk in chunks if chunk.data is not None], route))


def fold(events: Iterable[dict[str, Any]], route: RouteName) -> dict[str, Any]:
    """Merge the data of a stream's events into the body that the same answer has without streaming."""
    if route == "responses":
        return _fold_response(events)
    if route == "messages":
        return _fold_message(events)
    return _fold_choices(events, route)


def _fold_choices(events: Iterable[dict[str, Any]], route: RouteName) -> dict[str, Any]:
    body: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for event in events:
        if "error" in event and "choices" not in event:
            return event
        for key, value in event.items():
            if key != "choices" and (value is not None or key not in body):
                body[key] = value
        for part in event.get("choices") or ():
            index = part.get("index", 0)
            merge(choices.setdefault(index, {"index": index}), {k: v for k, v in part.items() if k != "index"})
    if not body and not choices:
        raise ValueError("the stream held no chunk")
    body["choices"] = [choices[index] for index in sorted(choices)]
    if route == "chat":
        body["object"] = "chat.completion"
        body = delta_to_message(body)
        for choice in body["choices"]:
            _finish_message(choice)
    return body


def _finish_message(choice: dict[str, Any]) -> None:
    message = choice.setdefault("message", {})
    message.setdefault("role", "assistant")
    message.setdefault("content", None)
    for call in message.get("tool_calls") or ():
        call.pop("index", None)
    choice.setdefault("finish_reason", None)


JOINED = frozenset(
    {"content", "refusal", "reasoning_content", "reasoning", "arguments", "input", "text", "data", "transcript"}
)
"""Members whose strings are pieces; any other is a name that comes whole, and may come again, or be left empty."""


def merge(into: dict[str, Any], part: dict[str, Any]) -> None:
    """Merge a delta: pieces of text are joined, lists go by `index` or are appended, the last of other values wins."""
    for key, value in part.items():
        standing = into.get(key)
        if value is None:
            into.setdefault(key, None)
        elif standing is None:
            into[key] = _copied(value)
        elif isinstance(value, str) and isinstance(standing, str):
            into[key] = standing + value if key in JOINED else value or standing
        elif isinstance(value, dict) and isinstance(standing, dict):
            merge(standing, value)
        elif isinstance(value, list) and isinstance(standing, list):
            _merge_list(standing, value)
        else:
            into[key] = value


def _merge_list(standing: list[Any], items: list[Any]) -> None:
    for item in items:
        index = item.get("index") if isinstance(item, dict) else None
        same = next((x for x in standing if isinstance(x, dict) and x.get("index") == index), None)
        if index is not None and same is not None:
            merge(same, item)
        else:
            standing.append(_copied(item))


def _copied(value: Any) -> Any:
    """A copy whose containers may be merged into, since chunks themselves never change."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return value


def _fold_response(events: Iterable[dict[str, Any]]) -> dict[str, Any]:
    last: dict[str, Any] | None = None
    for event in events:
        if event.get("type") == "error":
            return {"error": {name: told for name, told in event.items() if name not in ("type", "sequence_number")}}
        if isinstance(response := event.get("response"), dict):
            last = response
    if last is None:
        raise ValueError("the stream held no response object")
    return last


def _fold_message(events: Iterable[dict[str, Any]]) -> dict[str, Any]:
    message: dict[str, Any] | None = None
    blocks: dict[int, dict[str, Any]] = {}
    partial_json: dict[int, str] = {}
    for event in events:
        kind = event.get("type")
        index = event.get("index", 0)
        if kind == "message_start":
            message = _copied(event["message"])
        elif kind == "content_block_start":
            blocks[index] = _copied(event["content_block"])
        elif kind == "content_block_delta" and index in blocks:
            _add_block_delta(blocks[index], event["delta"], partial_json, index)
        elif kind == "message_delta" and message is not None:
            message.update(event.get("delta") or {})
            message.setdefault("usage", {}).update(event.get("usage") or {})
        elif kind == "error":
            return event
    if message is None:
        raise ValueError("the stream held no message")
    for index, text in partial_json.items():
        blocks[index]["input"] = _input_of(text)
    message["content"] = [blocks[index] for index in sorted(blocks)]
    return message


def _input_of(text: str) -> Any:
    """What a tool is given; of a call that was cut off, as much as came."""
    try:
        return _decode(text) if text else {}
    except msgspec.DecodeError:
        from pydantic_core import from_json

        try:
            return from_json(text, allow_partial=True)
        except ValueError:
            return {}


def _add_block_delta(block: dict[str, Any], delta: dict[str, Any], partial_json: dict[int, str], index: int) -> None:
    kind = delta.get("type")
    if kind == "input_json_delta":
        partial_json[index] = partial_json.get(index, "") + delta.get("partial_json", "")
    elif kind == "citations_delta":
        block.setdefault("citations", []).append(delta.get("citation"))
    else:
        name = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}.get(str(kind))
        if name is not None:
            block[name] = block.get(name, "") + delta.get(name, "")


def events_of(chunk: Chunk, route: RouteName, *, include_usage: bool) -> list[bytes]:
    """The events of a whole body, for a client that streams. Raises `ValueError` for a body that is no answer."""
    data = dict(chunk.data or {})
    if route in ("responses", "messages"):
        from predawn.proxy.wire.events import message_events, response_events

        made = response_events(data) if route == "responses" else message_events(data)
        return [event.raw for event in made]
    if route not in ("chat", "completions"):
        raise ValueError(f"a whole {route} body cannot be turned into a stream")
    if "error" in data:
        return [b"data: " + _encode(data) + b"\n\n"]
    usage = data.pop("usage", None)
    if route == "chat":
        data["object"] = "chat.completion.chunk"
        data["choices"] = [_indexed_calls(choice) for choice in data.get("choices") or ()]
    frames = [data]
    if include_usage and usage is not None:
        frames.append({**data, "choices": [], "usage": usage})
    return [*(b"data: " + _encode(frame) + b"\n\n" for frame in frames), b"data: [DONE]\n\n"]


def _indexed_calls(choice: dict[str, Any]) -> dict[str, Any]:
    """Streams number their tool calls, bodies do not."""
    delta = choice.get("delta") or {}
    if not delta.get("tool_calls"):
        return choice
    calls = [{"index": index, **call} for index, call in enumerate(delta["tool_calls"])]
    return {**choice, "delta": {**delta, "tool_calls": calls}}
