"""The conversation of a request in the words of its API, with more said at its end: drafts, notes, refused calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from predawn.plugins.verify.mending import Mending
    from predawn.proxy.exchange import RouteName

RESULTS: Final = frozenset({"tool", "function_call_output", "custom_tool_call_output"})
"""What answers a tool call is not added to."""


class Talk:
    """What was said, and what it is to be continued with; each method returns members of a request."""

    __slots__ = ("_member", "_route", "turns")

    def __init__(self, route: RouteName, member: str, turns: Sequence[Any]) -> None:
        self._route: RouteName = route
        self._member = member
        self.turns = turns

    @classmethod
    def of(cls, request: Mapping[str, Any], route: RouteName) -> Talk | None:
        """The conversation of a request; `None` where there is none that could go on.

        One that the provider keeps (`conversation`) would keep each attempt.
        """
        member = "input" if route == "responses" else "messages"
        if request.get("conversation") is not None and route == "responses":
            return None
        said = request.get(member)
        if isinstance(said, str) and route == "responses":
            return cls(route, member, [{"role": "user", "content": said}])
        return cls(route, member, said) if isinstance(said, list) and said else None

    def with_turns(self, *turns: Any) -> dict[str, Any]:
        """With more turns at its end."""
        return {self._member: [*self.turns, *turns]}

    def noted(self, note: str) -> Talk:
        """With a note at the end of the last message of a user, or of its own where there is none."""
        noted = list(self.turns)
        for place in range(len(noted) - 1, -1, -1):
            turn = noted[place]
            if isinstance(turn, dict) and turn.get("role") == "user":
                said = turn.get("content")
                if isinstance(said, str):
                    noted[place] = {**turn, "content": f"{said}\n\n{note}"}
                    return Talk(self._route, self._member, noted)
                if isinstance(said, list):
                    kind = "input_text" if self._route == "responses" else "text"
                    noted[place] = {**turn, "content": [*said, {"type": kind, "text": note}]}
                    return Talk(self._route, self._member, noted)
                break
            if isinstance(turn, dict) and (turn.get("role") in RESULTS or turn.get("type") in RESULTS):
                break
        return Talk(self._route, self._member, [*noted, {"role": "user", "content": note}])

    def refused(self, mending: Mending) -> dict[str, Any]:
        """With the wrong call as if it had been made, and its result: why it was not."""
        ident = str(mending.call.get("id") or "call_refused")
        function = mending.call.get("function")
        named = dict(function) if isinstance(function, Mapping) else {}
        is_custom, name = mending.call.get("type") == "custom", str(named.get("name") or "unknown")
        arguments = str(named.get("arguments") or "") if is_custom else _object(named.get("arguments"))
        why = f"Error: {mending.note} The call was not made."
        if self._route == "messages":
            said = [{"type": "text", "text": mending.content}] if mending.content.strip() else []
            used = {"type": "tool_use", "id": ident, "name": name, "input": msgspec.json.decode(arguments)}
            result = {"type": "tool_result", "tool_use_id": ident, "content": why, "is_error": True}
            return self.with_turns(
                {"role": "assistant", "content": [*said, used]}, {"role": "user", "content": [result]}
            )
        if self._route == "responses":
            before = [{"role": "assistant", "content": mending.content}] if mending.content.strip() else []
            kind, member = ("custom_tool_call", "input") if is_custom else ("function_call", "arguments")
            called = {"type": kind, "call_id": ident, "name": name, member: arguments}
            return self.with_turns(*before, called, {"type": f"{kind}_output", "call_id": ident, "output": why})
        if is_custom:
            call = {"id": ident, "type": "custom", "custom": {"name": name, "input": arguments}}
        else:
            call = {"type": "function", **mending.call, "id": ident, "function": {"name": name, "arguments": arguments}}
        return self.with_turns(
            {"role": "assistant", "content": mending.content or None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": ident, "content": why},
        )


def _object(arguments: Any) -> str:
    """Arguments as upstreams take them back: those that are no object would be refused."""
    try:
        told = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, TypeError, RecursionError):
        return "{}"
    return str(arguments) if isinstance(told, dict) else "{}"
