"""The text of a request's conversation: what answers go on from."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

MOST_CHARS = 4_000_000


def messages_text(request: Mapping[str, Any], roles: Collection[str] | None = None) -> str:
    """The texts of messages (of some roles), prompts, instructions and inputs, one below the other."""
    pieces: list[str] = []
    room = MOST_CHARS
    for piece in _pieces(request, roles):
        pieces.append(piece[:room])
        room -= len(piece) + 1
        if room <= 0:
            break
    return "\n".join(pieces)


def _pieces(request: Mapping[str, Any], roles: Collection[str] | None) -> Iterator[str]:
    for name, role in (("system", "system"), ("instructions", "system"), ("prompt", "user"), ("input", "user")):
        if roles is None or role in roles:
            yield from _texts(request.get(name), roles)
    messages = request.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, Mapping) and (roles is None or message.get("role") in roles):
            yield from _texts(message.get("content"), None)


def _texts(content: Any, roles: Collection[str] | None) -> Iterator[str]:
    """A text, or those of parts; of items with a role only the wanted ones."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, str):
                yield part
            elif isinstance(part, Mapping) and (roles is None or part.get("role", "user") in roles):
                yield from (part[name] for name in ("text", "output") if isinstance(part.get(name), str))
                yield from _texts(part.get("content"), None)
