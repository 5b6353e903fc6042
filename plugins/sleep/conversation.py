"""A request as contexts know it, one list of messages, whatever API it came by; and messages put back in its words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from predawn.plugins.sleep.contexts import Message

if TYPE_CHECKING:
    from predawn.proxy.exchange import RouteName

ROUTES: frozenset[RouteName] = frozenset({"chat", "messages", "responses"})
_ELSEWHERE = ("previous_response_id", "conversation", "prompt")
"""Members of a response's request that stand for messages which we do not see."""
_TEXTS = frozenset({"input_text", "output_text"})


@dataclass(frozen=True, slots=True)
class Conversation:
    """What was said so far, the question last."""

    route: RouteName
    messages: Sequence[Message]
    own: int = 0
    """1 if the first message stands elsewhere in the request: `system` of messages, `instructions` of responses."""

    @classmethod
    def of(cls, route: RouteName, request: Mapping[str, Any]) -> Conversation | None:
        """The conversation of a request; `None` where there is none that could be read."""
        if route == "chat":
            return _with_system(route, None, request.get("messages"))
        if route == "messages":
            return _with_system(route, request.get("system"), request.get("messages"))
        if route == "responses" and not any(request.get(name) for name in _ELSEWHERE):
            given = request.get("input")
            items = [{"role": "user", "content": given}] if isinstance(given, str) else given
            if isinstance(items, list):
                return _with_system(route, request.get("instructions"), [_message(item) for item in items])
        return None

    def put(self, edited: dict[str, Any], messages: Sequence[Message]) -> None:
        """Write messages back that begin with what stands elsewhere, which stays as it is."""
        said = list(messages[self.own :])
        if self.route != "responses":
            edited["messages"] = said
            return
        before = edited["input"] if isinstance(edited["input"], list) else []
        known = {id(shown): item for shown, item in zip(self.messages[self.own :], before, strict=False)}
        edited["input"] = [known.get(id(message)) or _item(message) for message in said]


def _with_system(route: RouteName, system: Any, messages: Any) -> Conversation | None:
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        return None
    if not system:
        return Conversation(route, messages)
    return Conversation(route, [{"role": "system", "content": system}, *messages], own=1)


def _message(item: Any) -> Any:
    """An item of a response's input as a chat message, if it is one; a call or its result stays as it is."""
    if (
        not isinstance(item, dict)
        or item.keys() - {"type", "role", "content"}
        or item.get("type", "message") != "message"
    ):
        return item
    content = item.get("content")
    if isinstance(content, list):
        content = [
            {**part, "type": "text"} if isinstance(part, dict) and part.get("type") in _TEXTS else part
            for part in content
        ]
    return {"role": item.get("role"), "content": content}


def _item(message: Message) -> dict[str, Any]:
    """A chat message of a user as an item of a response's input."""
    content = message["content"]
    if isinstance(content, list):
        content = [
            {**part, "type": "input_text"} if isinstance(part, dict) and part.get("type") == "text" else part
            for part in content
        ]
    return {"role": message["role"], "content": content}
