"""Messages in Anthropic's words, written: what left its block is closed, what goes on is put into one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from predawn.plugins import Chunk
from predawn.plugins.verify.dialects.native import Native, carried_by
from predawn.plugins.verify.reading import parts_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from predawn.plugins.verify.reading import Piece

STOPS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_KINDS: Final = {"content": "text", "reasoning": "thinking", "tool_call": "tool_use"}


class MessagesWriter:
    """Numbers blocks as the client sees them."""

    __slots__ = ("_begun", "_ending", "_has_started", "_next", "_open", "_part")

    def __init__(self) -> None:
        self._has_started = False
        self._begun: Chunk | None = None
        """A block that was announced and not passed on yet: what comes next shows whether anything will be in it."""
        self._ending: list[Chunk] = []
        """Why it ended, with the usage: told once nothing more can be added to it."""
        self._open: tuple[int, str] | None = None
        """Number and type of the block the client is in."""
        self._next = 0
        self._part = -1
        """Which tool call the open block is."""

    def write(self, chunk: Chunk) -> list[Chunk]:
        """An event as it came, or those that say what a chunk of ours does."""
        if isinstance(chunk, Native):
            return list(self._native(chunk.carried))
        events: list[Chunk] = []
        for part in parts_of(chunk, "chat"):
            for piece in part.pieces:
                events += self._say(piece)
            if part.finish is not None:
                events += self._finish(chunk, part.finish)
        return events

    def end(self) -> list[Chunk]:
        """The last event."""
        return [*self._flushed(), *self._closed(), *self._ending, _event({"type": "message_stop"}, is_last=True)]

    def _native(self, event: Chunk) -> Iterator[Chunk]:
        data = event.data or {}
        kind = data.get("type")
        if kind == "message_start":
            self._has_started = True
        yield from self._flushed()
        if kind == "content_block_start":
            self._begun = event
            return
        if kind == "content_block_stop":
            self._open = None
        if kind == "message_delta":
            self._ending.append(event)
        else:
            yield event

    def _flushed(self) -> Iterator[Chunk]:
        """The announcement that was kept back."""
        event, self._begun = self._begun, None
        data = event.data if event is not None else None
        if event is not None and data is not None:
            index, block = data.get("index"), data.get("content_block")
            number = index if isinstance(index, int) else self._next
            self._open = number, str(block.get("type")) if isinstance(block, dict) else ""
            self._part = -1
            self._next = max(self._next, number + 1)
            yield event

    def _say(self, piece: Piece) -> Iterator[Chunk]:
        where = piece.key.where
        kind = _KINDS[where]
        if not piece.text and where != "tool_call":
            return
        yield from self._ready_for(kind, piece)
        assert self._open is not None
        if kind == "text":
            delta = {"type": "text_delta", "text": piece.text}
        elif kind == "thinking":
            delta = {"type": "thinking_delta", "thinking": piece.text}
        else:
            delta = {"type": "input_json_delta", "partial_json": piece.text}
        if piece.text:
            yield _event({"type": "content_block_delta", "index": self._open[0], "delta": delta})

    def _ready_for(self, kind: str, piece: Piece) -> Iterator[Chunk]:
        """Be in a block of a kind."""
        if not self._has_started:
            self._has_started = True
            yield _event({"type": "message_start", "message": _EMPTY})
        if (begun := self._begun) is not None:
            block = (begun.data or {}).get("content_block")
            if kind != "tool_use" and isinstance(block, dict) and block.get("type") == kind:
                yield from self._flushed()
            self._begun = None  # nothing will be in it
        if self._open is not None and self._open[1] == kind and (kind != "tool_use" or self._part == piece.key.part):
            return
        yield from self._closed()
        block = {"type": kind, kind: ""}
        if kind == "tool_use":
            told = piece.call or {}
            function = told.get("function")
            name = function.get("name") if isinstance(function, dict) else ""
            block = {"type": kind, "id": told.get("id"), "name": name, "input": {}}
        elif kind == "thinking":
            block["signature"] = ""
        self._open = self._next, kind
        self._part = piece.key.part if kind == "tool_use" else -1
        self._next += 1
        yield _event({"type": "content_block_start", "index": self._open[0], "content_block": block})

    def _closed(self) -> Iterator[Chunk]:
        if self._open is not None:
            yield _event({"type": "content_block_stop", "index": self._open[0]})
            self._open = None

    def _finish(self, chunk: Chunk, finish: str) -> Iterator[Chunk]:
        self._begun = None
        yield from self._closed()
        carried = carried_by(chunk)
        told = carried.data or {} if carried is not None else {}
        delta: dict[str, Any] = {"stop_reason": STOPS.get(finish, finish), "stop_sequence": None}
        if isinstance(given := told.get("delta"), dict):
            delta = given
        choice = (chunk.data or {})["choices"][0]
        if (why := choice.get("predawn")) is not None:
            delta = {**delta, "predawn": why}
        usage = told.get("usage") if isinstance(told.get("usage"), dict) else {"output_tokens": 0}
        self._ending.append(_event({"type": "message_delta", "delta": delta, "usage": usage}))


_EMPTY: Final[dict[str, Any]] = {
    "id": "msg_predawn",
    "type": "message",
    "role": "assistant",
    "model": "",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {"input_tokens": 0, "output_tokens": 0},
}


def _event(data: dict[str, Any], *, is_last: bool = False) -> Chunk:
    return Chunk(None, data, event=data["type"], is_last=is_last)
