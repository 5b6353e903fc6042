"""Messages in Anthropic's words, read: https://docs.anthropic.com/en/api/messages-streaming."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from predawn.plugins.verify.dialects.native import (
    CONTENT,
    REASONING,
    Channels,
    call_begun,
    call_piece,
    part_of,
    text_piece,
)
from predawn.proxy.wire.events import message_events
from predawn.proxy.wire.fold import BodyChunk

if TYPE_CHECKING:
    from predawn.plugins import Chunk
    from predawn.plugins.verify.reading import Key, Part, Piece

FINISHES: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_TEXTS: Final = {"text": CONTENT, "thinking": REASONING}
_encode = msgspec.json.Encoder().encode


class MessagesReader:
    """Text blocks are content, thinking blocks thoughts, tool uses tool calls; what servers do by themselves passes."""

    __slots__ = ("_blocks", "_calls", "_channels")

    def __init__(self) -> None:
        self._blocks: dict[Any, int | None] = {}
        """The number of the tool call that a block is, if it is one."""
        self._calls = 0
        self._channels = Channels()

    def events(self, chunk: Chunk) -> list[Chunk]:
        """The event itself, or those of a whole body."""
        return message_events(chunk.body) if isinstance(chunk, BodyChunk) else [chunk]

    def read(self, event: Chunk) -> list[Part]:
        """What an event says."""
        data = event.data
        kind = data.get("type") if data is not None else None
        if data is None or kind in (None, "ping", "error", "message_stop"):
            return []
        if kind == "message_start":
            return self._start(event, data)
        if kind == "content_block_start":
            return [part_of(event, self._block(data))]
        if kind == "content_block_delta":
            return [part_of(event, self._delta(data))]
        delta = data.get("delta")
        reason = delta.get("stop_reason") if kind == "message_delta" and isinstance(delta, dict) else None
        return [part_of(event, (), FINISHES.get(reason, reason) if isinstance(reason, str) else None)]

    def _start(self, event: Chunk, data: dict[str, Any]) -> list[Part]:
        """The head of the message; one that has content already is taken apart."""
        message = data.get("message")
        if not isinstance(message, dict) or not message.get("content"):
            return [part_of(event)]
        head = part_of(event.with_data({**data, "message": {**message, "content": []}}))
        try:
            whole = message_events(message)
        except ValueError:
            return [head]  # what cannot be read is not passed on
        inner = [one for one in whole if str(one.event).startswith("content_block")]
        return [head, *(part for one in inner for part in self.read(one))]

    def _block(self, data: dict[str, Any]) -> list[Piece]:
        block = data.get("content_block")
        kind = block.get("type") if isinstance(block, dict) else None
        index = data.get("index")
        self._blocks[_hashable(index)] = None
        if not isinstance(block, dict) or not isinstance(kind, str):
            return []
        if kind == "tool_use":
            self._channels.begins(None)
            number = self._blocks[_hashable(index)] = self._calls
            self._calls += 1
            given = block.get("input")
            said = _encode(given).decode() if given else ""
            return [call_piece(number, said, call_begun(block.get("id"), block.get("name")))]
        key = _TEXTS.get(kind)
        if key is None:
            self._channels.begins(None)
            return []
        gap = self._channels.begins(key, joins=key == CONTENT)  # citations cut a sentence into blocks
        return [*gap, *self._said(key, block.get(kind))]

    def _delta(self, data: dict[str, Any]) -> list[Piece]:
        delta = data.get("delta")
        if not isinstance(delta, dict):
            return []
        kind = delta.get("type")
        if kind == "text_delta":
            return self._said(CONTENT, delta.get("text"))
        if kind == "thinking_delta":
            return self._said(REASONING, delta.get("thinking"))
        number = self._blocks.get(_hashable(data.get("index")))
        text = delta.get("partial_json")
        if kind == "input_json_delta" and number is not None and isinstance(text, str):
            return [call_piece(number, text)]
        return []

    def _said(self, key: Key, text: Any) -> list[Piece]:
        if not isinstance(text, str) or not text:
            return []
        self._channels.says(key)
        return [text_piece(key, text)]


def _hashable(index: Any) -> Any:
    return index if isinstance(index, (int, str)) else None
