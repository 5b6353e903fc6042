"""An event of another API in chat's shape, which still carries the event itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from predawn.plugins import Chunk
from predawn.plugins.verify.reading import CONTENT, REASONING, Key, Part, Piece

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MEMBERS = {"content": "content", "reasoning": "reasoning_content", "tool_call": "tool_calls"}
BREAK = "\n\n"
"""What stands between two texts that the API keeps apart and verifiers read as one."""


class Native(Chunk):
    """Leaves as the event it carries; once changed, it is a chunk like any other."""

    __slots__ = ("carried",)

    def __init__(self, carried: Chunk, delta: Mapping[str, Any], finish: str | None = None) -> None:
        super().__init__(None, {"choices": [{"index": 0, "delta": dict(delta), "finish_reason": finish}]})
        self.carried = carried


def carried_by(chunk: Chunk) -> Chunk | None:
    """The event that a chunk was made from, if it was."""
    origin: Chunk | None = chunk
    while origin is not None:
        if isinstance(origin, Native):
            return origin.carried
        origin = origin.origin
    return None


def part_of(event: Chunk, said: Sequence[Piece] = (), finish: str | None = None) -> Part:
    """What an event says, as the part of an answer's only choice."""
    delta: dict[str, Any] = {}
    for piece in said:
        if piece.call is not None:
            function = {**piece.call.get("function", {}), "arguments": piece.text}
            delta.setdefault("tool_calls", []).append({**piece.call, "function": function})
        else:
            name = MEMBERS[piece.key.where]
            delta[name] = delta.get(name, "") + piece.text
    is_plain = len(said) == 1 and said[0].call is None and finish is None and bool(said[0].member)
    return Part(0, tuple(said), finish, Native(event, delta, finish), is_plain)


def text_piece(key: Key, text: str) -> Piece:
    """The next piece of thoughts or content."""
    return Piece(key, text, None, MEMBERS[key.where])


def break_piece(key: Key) -> Piece:
    """A gap that no token stands for."""
    return Piece(key, BREAK)


def call_piece(number: int, text: str, told: Mapping[str, Any] | None = None) -> Piece:
    """The next piece of a tool call's arguments; the first one has `told`, its id, type and function."""
    return Piece(Key("tool_call", number), text, {"index": number, **(told or {})}, "tool_calls")


def call_begun(ident: Any, name: Any, kind: str = "function") -> dict[str, Any]:
    """Id and name of a tool call, as chat tells them."""
    return {"id": str(ident or ""), "type": kind, "function": {"name": name if isinstance(name, str) else ""}}


class Channels:
    """Which texts have begun, so that a gap is told between those that are apart."""

    __slots__ = ("_begun", "_last")

    def __init__(self) -> None:
        self._begun: set[Key] = set()
        self._last: Key | None = None

    def begins(self, key: Key | None, *, joins: bool = False) -> list[Piece]:
        """Another text of the same kind begins; `joins` if it goes on where the one just before it ended."""
        gap = key is not None and key in self._begun and not (joins and self._last == key)
        self._last = key
        return [break_piece(key)] if gap and key is not None else []

    def says(self, key: Key) -> None:
        """Something is said in it."""
        self._begun.add(key)


__all__ = [
    "BREAK",
    "CONTENT",
    "MEMBERS",
    "REASONING",
    "Channels",
    "Native",
    "break_piece",
    "call_begun",
    "call_piece",
    "carried_by",
    "part_of",
    "text_piece",
]
