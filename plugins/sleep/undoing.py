"""Takes out again what was put into a request that an upstream refused, so that sleep lets nothing fail."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from predawn.plugins.sleep.conversation import Conversation
from predawn.plugins.sleep.injection import without

if TYPE_CHECKING:
    from predawn.plugins import Exchange

REFUSALS = frozenset({400, 413, 422})
"""Statuses that notes may be to blame for: a context window that is full, a template that wants other roles."""
_ABSENT: Any = object()


@dataclass(slots=True)
class Change:
    """What sleep changed in one request."""

    put: str
    gap: str
    members: dict[str, tuple[Any, Any]] = field(default_factory=dict[str, tuple[Any, Any]])
    """Other members by name: before and after."""

    def saw(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        """Note which members differ."""
        for name, value in after.items():
            if value is not before.get(name, _ABSENT):
                self.members[name] = (before.get(name, _ABSENT), value)

    def undo(self, exchange: Exchange) -> bool:
        """Undo it. False, and nothing is changed, if another plugin has changed the same since."""
        conversation = Conversation.of(exchange.route, exchange.request)
        messages = without(conversation.messages, self.put, self.gap) if conversation is not None else None
        edited = exchange.edit()
        if (
            messages is None
            or conversation is None
            or any(edited.get(n) != now for n, (_, now) in self.members.items())
        ):
            return False
        conversation.put(edited, messages)
        for name, (before, _) in self.members.items():
            if before is _ABSENT:
                del edited[name]
            else:
                edited[name] = before
        return True
