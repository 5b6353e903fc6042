"""`tool_call`: which tools are called with which arguments; ids and the order of calls do not matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from predawn.plugins.sampling.answers.json_value import UnreadableError, canonical_json, digest
from predawn.proxy.extensions import Extracted

MOST_CALLS = 128


class ToolCallExtractor:
    """For requests whose answer must be a call: a text is none."""

    name = "tool_call"

    def extract(self, text: str) -> Extracted | None:  # noqa: ARG002 - the protocol's
        """Nothing: calls are read by `read`."""
        return None


def read(calls: Sequence[Mapping[str, Any]]) -> Extracted | None:
    """What is called; `None` if any of the calls cannot be read."""
    if len(calls) > MOST_CALLS:
        return None
    try:
        called = sorted(_called(call) for call in calls)
    except UnreadableError:
        return None
    return Extracted(("tool_calls", digest("\n".join(map(repr, called)))), ", ".join(name[:64] for name, _ in called))


def _called(call: Mapping[str, Any]) -> tuple[str, str]:
    """Name and canonical arguments, from the shapes of chat, responses and messages."""
    inner = call.get("function") or call.get("custom")
    said: Mapping[str, Any] = inner if isinstance(inner, Mapping) else call
    name = said.get("name")
    if not isinstance(name, str) or not name:
        raise UnreadableError("a call without a name")
    if "custom" in call and isinstance(said.get("input"), str):
        return name, repr(said["input"])
    arguments = said.get("arguments", said.get("input"))
    if isinstance(arguments, str):
        return name, canonical_json(arguments.strip() or "{}")
    if arguments is None:
        return name, canonical_json("{}")
    raise UnreadableError("arguments that are no text")
