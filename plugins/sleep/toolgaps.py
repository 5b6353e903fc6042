"""Answers that wait for the client's tools, in the words of each API: the tools' run time is idle time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from predawn.plugins.sleep.sending import choices_of

if TYPE_CHECKING:
    from predawn.plugins import Chunk
    from predawn.proxy.exchange import RouteName

_REASONS = frozenset({"tool_calls", "function_call"})
_ITEMS = frozenset(
    {
        "apply_patch_call",
        "computer_call",
        "custom_tool_call",
        "function_call",
        "local_shell_call",
        "mcp_approval_request",
        "shell_call",
    }
)
"""Items of a response that the client must answer; searches and the like run at the provider's."""
_ENDS = frozenset({None, "response.completed", "response.output_item.done"})
"""Events that tell of whole items; a whole body has no name."""


def waits_for_tools(route: RouteName, chunk: Chunk) -> bool:
    """True if this chunk says that the answer ends in calls of tools which the client has to run."""
    if route == "chat":
        reasons = (choice.get("finish_reason") for choice in choices_of(chunk))
        return any(isinstance(reason, str) and reason in _REASONS for reason in reasons)
    if route == "messages":
        return chunk.event in (None, "message_delta") and _stopped_for_tools(chunk.data)
    if route == "responses":
        return chunk.event in _ENDS and _has_calls(chunk.data)
    return False


def _stopped_for_tools(data: Any) -> bool:
    """Of `/v1/messages`: the body, or the event that ends one."""
    if not isinstance(data, dict):
        return False
    delta = data.get("delta")
    return "tool_use" in (data.get("stop_reason"), delta.get("stop_reason") if isinstance(delta, dict) else None)


def _has_calls(data: Any) -> bool:
    """Of `/v1/responses`: the body, the event that holds it, or one with a single item."""
    if not isinstance(data, dict):
        return False
    body = data.get("response")
    items = (body if isinstance(body, dict) else data).get("output")
    found = [*(items if isinstance(items, list) else []), data.get("item")]
    return any(isinstance(item, dict) and item.get("type") in _ITEMS for item in found)
