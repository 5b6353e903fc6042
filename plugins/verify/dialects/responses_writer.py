"""Responses in OpenAI's words, written: items, parts and events are numbered as the client sees them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from predawn.plugins import Chunk
from predawn.plugins.verify.dialects.native import Native, carried_by
from predawn.plugins.verify.reading import parts_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from predawn.plugins.verify.reading import Piece

_BEGIN: Final = frozenset(
    {"response.output_item.added", "response.content_part.added", "response.reasoning_summary_part.added"}
)
_ENDS: Final = frozenset({"response.completed", "response.failed", "response.incomplete", "response.cancelled"})
_TYPES: Final = {"content": "message", "reasoning": "reasoning", "tool_call": "function_call"}
_LANES: Final = frozenset({"output_text", "reasoning_text", "reasoning_summary_text"})
_SUMMARY: Final = "reasoning_summary_text"


@dataclass(slots=True)
class _Item:
    """The output item the client is in."""

    index: int
    item: dict[str, Any]
    lane: str = ""
    """What the open part is: `output_text`, `reasoning_text` or `reasoning_summary_text`."""
    place: int = 0
    """Number of the open part."""
    said: list[str] = field(default_factory=list[str])
    """Of the open part, or of the arguments."""
    call: int = -1
    is_told: bool = False
    """True once the whole text of the open part was repeated."""

    @property
    def parts(self) -> str:
        """The member that its parts belong to."""
        return "summary" if self.lane == _SUMMARY else "content"

    @property
    def part(self) -> dict[str, Any]:
        """The open part as it stands."""
        text = "".join(self.said)
        if self.lane == "output_text":
            return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        return {"type": "summary_text" if self.lane == _SUMMARY else self.lane, "text": text}


class ResponsesWriter:
    """Follows what it passes on, so that it can end or go on with it at any place."""

    __slots__ = ("_begun", "_has_ended", "_has_numbers", "_items", "_next", "_number", "_open", "_response")

    def __init__(self) -> None:
        self._response: dict[str, Any] = {}
        self._items: dict[int, dict[str, Any]] = {}
        """Those that the client has been told the end of."""
        self._open: _Item | None = None
        self._next = 0
        self._begun: list[Chunk] = []
        """Announcements that were not passed on yet: what comes next shows whether anything will be in them."""
        self._number = 0
        self._has_numbers = False
        self._has_ended = False

    def write(self, chunk: Chunk) -> list[Chunk]:
        """An event as it came, or those that say what a chunk of ours does."""
        if isinstance(chunk, Native):
            return list(self._native(chunk.carried))
        events: list[Chunk] = []
        for part in parts_of(chunk, "chat"):
            for piece in part.pieces:
                events += self._say(chunk, piece)
            if part.finish is not None:
                events += self._finish(chunk, part.finish)
        return events

    def end(self) -> list[Chunk]:
        """The end, where none was told."""
        return [] if self._has_ended else list(self._finish(Chunk(None, {"choices": [{}]}), "stop"))

    # -- as it came

    def _native(self, event: Chunk) -> Iterator[Chunk]:
        data = event.data or {}
        kind = str(data.get("type"))
        if kind in _BEGIN:
            if kind == "response.output_item.added":
                yield from self._flushed()
            self._begun.append(event)
            return
        yield from self._flushed()
        self._follow(kind, data)
        yield self._numbered(event, data)

    def _flushed(self) -> Iterator[Chunk]:
        begun, self._begun = self._begun, []
        for event in begun:
            data = event.data or {}
            self._follow(str(data.get("type")), data)
            yield self._numbered(event, data)

    def _numbered(self, event: Chunk, data: dict[str, Any]) -> Chunk:
        """The event with its number in the client's stream."""
        given = data.get("sequence_number")
        if not isinstance(given, int):
            return event
        if not self._has_numbers:
            self._has_numbers, self._number = True, given
        number, self._number = self._number, self._number + 1
        return event if number == given else event.with_data({**data, "sequence_number": number})

    def _follow(self, kind: str, data: dict[str, Any]) -> None:
        """Note what an event makes the client believe."""
        response, item, part = data.get("response"), data.get("item"), data.get("part")
        index = data.get("output_index")
        if isinstance(response, dict):
            self._response = response
            self._has_ended = kind in _ENDS
        elif kind == "response.output_item.added" and isinstance(item, dict):
            number = index if isinstance(index, int) else self._next
            self._open = _Item(number, dict(item))
            self._next = max(self._next, number + 1)
        elif kind == "response.output_item.done" and isinstance(item, dict):
            self._items[index if isinstance(index, int) else self._next] = item
            self._open = None
        elif (open_ := self._open) is not None:
            self._follow_part(open_, kind.removeprefix("response."), data, part if isinstance(part, dict) else {})

    @staticmethod
    def _follow_part(item: _Item, kind: str, data: dict[str, Any], part: dict[str, Any]) -> None:
        name, _, step = kind.rpartition(".")
        if name in ("content_part", "reasoning_summary_part"):
            place = data.get("content_index", data.get("summary_index"))
            if step == "added":
                item.lane = _SUMMARY if name != "content_part" else str(part.get("type"))
                item.place = place if isinstance(place, int) else 0
                item.said, item.is_told = [], False
            else:
                item.item[item.parts] = [*(item.item.get(item.parts) or ()), part]
                item.lane, item.said = "", []
        elif step == "delta" and isinstance(said := data.get("delta"), str):
            if name in _LANES and not item.lane:
                item.lane = name
            if name == item.lane or name in ("function_call_arguments", "custom_tool_call_input"):
                item.said.append(said)
        elif step == "done" and name == item.lane:
            item.is_told = True

    # -- in our words

    def _told(self, kind: str, **data: Any) -> Chunk:
        told: dict[str, Any] = {"type": kind, **data}
        if self._has_numbers:
            told["sequence_number"] = self._number
            self._number += 1
        self._follow(kind, told)
        return Chunk(None, told, event=kind, is_last=kind in _ENDS)

    def _say(self, chunk: Chunk, piece: Piece) -> Iterator[Chunk]:
        where = piece.key.where
        if not piece.text and where != "tool_call":
            return
        lane = "output_text"
        if where == "reasoning":
            carried = carried_by(chunk)
            is_summary = carried is not None and str((carried.data or {}).get("type")).startswith(
                "response.reasoning_summary"
            )
            lane = _SUMMARY if is_summary else "reasoning_text"
        yield from self._ready_for(_TYPES[where], lane, piece)
        item = self._open
        assert item is not None
        at = {"item_id": item.item.get("id"), "output_index": item.index}
        if where == "tool_call":
            if piece.text:
                is_custom = item.item.get("type") == "custom_tool_call"
                name = "custom_tool_call_input" if is_custom else "function_call_arguments"
                yield self._told(f"response.{name}.delta", **at, delta=piece.text)
            return
        more: dict[str, Any] = {"logprobs": []} if item.lane == "output_text" else {}
        yield self._told(f"response.{item.lane}.delta", **at, **self._place(item), delta=piece.text, **more)

    @staticmethod
    def _place(item: _Item) -> dict[str, int]:
        return {"summary_index" if item.lane == _SUMMARY else "content_index": item.place}

    def _ready_for(self, kind: str, lane: str, piece: Piece) -> Iterator[Chunk]:
        """Be in an item of a type, and in a part of it."""
        if self._begun:
            first = (self._begun[0].data or {}).get("item")
            is_same = not isinstance(first, dict) or first.get("type") == kind
            if is_same and kind != "function_call":
                yield from self._flushed()
            self._begun = []  # nothing will be in them
        item = self._open
        if kind == "function_call":
            if item is None or item.call != piece.key.part:
                yield from self._closed()
                yield self._call(piece)
            return
        if item is None or item.item.get("type") != kind:
            yield from self._closed()
            begun: dict[str, Any] = {"id": self._id("msg" if kind == "message" else "rs"), "type": kind}
            if kind == "message":
                begun |= {"role": "assistant", "status": "in_progress", "content": []}
            else:
                begun |= {"summary": []} if lane == _SUMMARY else {"summary": [], "content": []}
            yield self._told("response.output_item.added", output_index=self._next, item=begun)
            item = self._open
        assert item is not None
        if not item.lane:
            yield from self._part_begun(item, lane)

    def _part_begun(self, item: _Item, lane: str) -> Iterator[Chunk]:
        name = "reasoning_summary_part" if lane == _SUMMARY else "content_part"
        member = "summary" if lane == _SUMMARY else "content"
        place = {"summary_index" if lane == _SUMMARY else "content_index": len(item.item.get(member) or ())}
        part = _Item(item.index, {}, lane).part
        at = {"item_id": item.item.get("id"), "output_index": item.index}
        yield self._told(f"response.{name}.added", **at, **place, part=part)

    def _call(self, piece: Piece) -> Chunk:
        told = piece.call or {}
        function = told.get("function")
        name = function.get("name") if isinstance(function, dict) else ""
        is_custom = told.get("type") == "custom"
        begun: dict[str, Any] = {"id": self._id("ctc" if is_custom else "fc")}
        begun |= {"type": "custom_tool_call", "input": ""} if is_custom else {"type": "function_call", "arguments": ""}
        begun |= {"status": "in_progress", "call_id": told.get("id"), "name": name}
        chunk = self._told("response.output_item.added", output_index=self._next, item=begun)
        assert self._open is not None
        self._open.call = piece.key.part
        return chunk

    def _id(self, kind: str) -> str:
        return f"{kind}_{self._next}_{self._response.get('id', 'predawn')}"

    def _closed(self, status: str = "completed") -> Iterator[Chunk]:
        """End the item the client is in, with all that the API tells about it once more."""
        item = self._open
        if item is None:
            return
        at = {"item_id": item.item.get("id"), "output_index": item.index}
        kind = item.item.get("type")
        if kind in ("function_call", "custom_tool_call"):
            member, name = (
                ("arguments", "function_call_arguments")
                if kind == "function_call"
                else (
                    "input",
                    "custom_tool_call_input",
                )
            )
            said = "".join(item.said)
            item.item[member] = said
            named = {"name": item.item.get("name")} if kind == "function_call" else {}
            yield self._told(f"response.{name}.done", **at, **{member: said}, **named)
        elif item.lane in _LANES:
            part, place = item.part, self._place(item)
            if not item.is_told:
                more: dict[str, Any] = {"logprobs": []} if item.lane == "output_text" else {}
                yield self._told(f"response.{item.lane}.done", **at, **place, text=part["text"], **more)
            name = "reasoning_summary_part" if item.lane == _SUMMARY else "content_part"
            yield self._told(f"response.{name}.done", **at, **place, part=part)
        whole = {**item.item, "status": status} if "status" in item.item else item.item
        yield self._told("response.output_item.done", output_index=item.index, item=whole)

    def _finish(self, chunk: Chunk, finish: str) -> Iterator[Chunk]:
        self._begun = []
        is_whole = finish in ("stop", "tool_calls")
        yield from self._closed("completed" if is_whole else "incomplete")
        carried = carried_by(chunk)
        ended = (carried.data or {}).get("response") if carried is not None else None
        kind = "response.completed" if is_whole else "response.incomplete"
        response = {**self._response, "status": "completed" if is_whole else "incomplete"}
        if isinstance(ended, dict):
            response |= {
                name: ended[name] for name in ("usage", "status", "incomplete_details", "error") if name in ended
            }
            kind = str((carried.data or {}).get("type")) if carried is not None else kind
        elif not is_whole:
            reason = "content_filter" if finish == "content_filter" else "max_output_tokens"
            response["incomplete_details"] = {"reason": reason}
        if not isinstance(response.get("usage"), dict):
            response["usage"] = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
        response["output"] = [self._items[index] for index in sorted(self._items)]
        why = (chunk.data or {})["choices"][0].get("predawn")
        if why is not None:
            response["predawn"] = why
        yield self._told(kind, response=response)
