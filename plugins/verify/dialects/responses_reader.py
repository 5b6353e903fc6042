"""Responses in OpenAI's words, read: https://platform.openai.com/docs/api-reference/responses-streaming.

Everything in a response is told several times: in pieces, when a text is done, when its item is, and once more at the
end. A repetition says nothing new where it is what came in pieces; what it adds is read like a piece, and where it
contradicts what was read it is told as that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from predawn.plugins.verify.dialects.native import (
    CONTENT,
    REASONING,
    Channels,
    call_begun,
    call_piece,
    part_of,
    text_piece,
)
from predawn.proxy.wire.events import response_events
from predawn.proxy.wire.fold import BodyChunk
from predawn.proxy.wire.text import Lane, put, texts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from predawn.plugins import Chunk
    from predawn.plugins.verify.reading import Part, Piece

FINISHES: Final = {
    "response.completed": "stop",
    "response.failed": "failed",
    "response.cancelled": "cancelled",
    "response.incomplete": "length",
}
KEYS: Final = {"output_text": CONTENT, "reasoning_text": REASONING, "reasoning_summary_text": REASONING}
CALLS: Final = {"function_call": "function", "custom_tool_call": "custom"}
_ARGUMENTS: Final = frozenset({"function_call_arguments", "custom_tool_call_input"})
_HEADS: Final = frozenset({"response.created", "response.in_progress", "response.queued"})


class ResponsesReader:
    """Output texts are content, reasoning and its summaries thoughts, function and custom calls tool calls."""

    __slots__ = ("_calls", "_channels", "_said")

    def __init__(self) -> None:
        self._said: dict[Lane, list[str]] = {}
        self._calls: dict[int, tuple[int, dict[str, Any]]] = {}
        """Number, id and name of the call that an output item is."""
        self._channels = Channels()

    def events(self, chunk: Chunk) -> list[Chunk]:
        """The event itself, or those of a whole body."""
        return response_events(chunk.body) if isinstance(chunk, BodyChunk) else [chunk]

    def read(self, event: Chunk) -> list[Part]:
        """What an event says."""
        data = event.data
        kind = data.get("type") if data is not None else None
        if data is None or not isinstance(kind, str) or kind == "error":
            return []
        if kind in _HEADS:
            return [self._head(event, data)]
        if kind.endswith(".delta"):
            return [part_of(event, self._delta(data))]
        said = [*self._begins(kind, data), *self._items(data)]
        told, more = self._repeated(data)
        if told is not data:
            event = event.with_data(told)
        return [part_of(event, [*said, *more], self._finish(kind, data))]

    def _head(self, event: Chunk, data: dict[str, Any]) -> Part:
        """The announcement of a response, which holds no text yet."""
        response = data.get("response")
        if isinstance(response, dict) and response.get("output"):
            return part_of(event.with_data({**data, "response": {**response, "output": []}}))
        return part_of(event)

    def _finish(self, kind: str, data: dict[str, Any]) -> str | None:
        finish = FINISHES.get(kind)
        if finish != "length":
            return "tool_calls" if finish == "stop" and self._calls else finish
        response = data.get("response")
        details = response.get("incomplete_details") if isinstance(response, dict) else None
        reason = details.get("reason") if isinstance(details, dict) else None
        return "content_filter" if reason == "content_filter" else "length"

    def _delta(self, data: dict[str, Any]) -> list[Piece]:
        return [piece for span in texts(data, "responses") for piece in self._adds(span.lane, span.text)]

    def _adds(self, lane: Lane, text: str) -> Iterator[Piece]:
        """The next piece of a text."""
        key = KEYS.get(lane.kind)
        if key is not None:
            self._said.setdefault(lane, []).append(text)
            self._channels.says(key)
            yield text_piece(key, text)
        elif lane.kind in _ARGUMENTS and lane.group in self._calls:
            self._said.setdefault(lane, []).append(text)
            yield call_piece(self._calls[lane.group][0], text)

    def _begins(self, kind: str, data: dict[str, Any]) -> list[Piece]:
        """A gap where one more text of a kind begins."""
        if kind == "response.reasoning_summary_part.added":
            return self._channels.begins(REASONING)
        part = data.get("part")
        if kind == "response.content_part.added" and isinstance(part, dict):
            key = KEYS.get(str(part.get("type")))
            return self._channels.begins(key) if key is not None else []
        return []

    def _items(self, data: dict[str, Any]) -> list[Piece]:
        """Tool calls that are named for the first time."""
        return [
            call_piece(self._calls[group][0], "", self._calls[group][1])
            for group, item in _items_of(data)
            if str(item.get("type")) in CALLS and self._is_new(group, item)
        ]

    def _is_new(self, group: int, item: dict[str, Any]) -> bool:
        if group in self._calls:
            return False
        told = call_begun(item.get("call_id"), item.get("name"), CALLS[str(item["type"])])
        self._calls[group] = (len(self._calls), told)
        return True

    def _repeated(self, data: dict[str, Any]) -> tuple[dict[str, Any], list[Piece]]:
        """The data without contradictions, and what it says that was not said in pieces."""
        told = self._named_as_before(data)
        more: list[Piece] = []
        for span in texts(data, "responses"):
            if span.lane.kind not in KEYS and not (span.lane.kind in _ARGUMENTS and span.lane.group in self._calls):
                continue
            said = "".join(self._said.get(span.lane, ()))
            if span.text.startswith(said):
                if rest := span.text[len(said) :]:
                    more += self._adds(span.lane, rest)
            else:
                told = put(told, span.path, said)
        return told, more

    def _named_as_before(self, data: dict[str, Any]) -> dict[str, Any]:
        """A call is known by its first name: that is the one which was verified."""
        told = data
        for path, group, item in _placed_items(data):
            if group not in self._calls or str(item.get("type")) not in CALLS:
                continue
            _, known = self._calls[group]
            if item.get("name") != known["function"]["name"] and item.get("name") is not None:
                told = put(told, (*path, "name"), known["function"]["name"])
        name = data.get("name")
        place = data.get("output_index")
        if isinstance(name, str) and isinstance(place, int) and place in self._calls:
            first = self._calls[place][1]["function"]["name"]
            return told if name == first else {**told, "name": first}
        return told


def _items_of(data: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    for _, group, item in _placed_items(data):
        yield group, item


def _placed_items(data: dict[str, Any]) -> Iterator[tuple[tuple[str | int, ...], int, dict[str, Any]]]:
    """The output items in an event: where they stand, their number, and what they say."""
    group = data.get("output_index")
    if isinstance(item := data.get("item"), dict):
        yield ("item",), group if isinstance(group, int) else 0, item
    response = data.get("response")
    output = response.get("output") if isinstance(response, dict) else None
    for place, one in enumerate(output if isinstance(output, list) else ()):
        if isinstance(one, dict):
            yield ("response", "output", place), place, one
