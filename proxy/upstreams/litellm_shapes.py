"""LiteLLM's answers in OpenAI's shape: without its empty members, its inventions and its own bookkeeping."""

from __future__ import annotations

from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode
_LITELLMS_OWN = frozenset({"cost"})
"""Members of `usage` that no provider sent: prices come from Predawn's settings."""
_KEPT = frozenset({"id", "created", "model", "object"})
_OFTEN_EMPTY = ("vertex_ai_", "images", "thinking_blocks", "annotations")


def clean_body(body: dict[str, Any]) -> dict[str, Any]:
    """The body of an answer that does not stream."""
    cleaned: dict[str, Any] = _without_none(body)
    for choice in cleaned.get("choices") or ():
        choice.setdefault("message", {}).setdefault("content", None)
    if "usage" in cleaned:
        cleaned["usage"] = clean_usage(cleaned["usage"])
    return cleaned


def clean_chunk(chunk: dict[str, Any]) -> dict[str, Any]:
    """One chunk of a stream, without usage."""
    cleaned: dict[str, Any] = _without_none(chunk)
    cleaned.pop("usage", None)
    for choice in cleaned.get("choices") or ():
        choice.setdefault("finish_reason", None)
        delta = choice.setdefault("delta", {})
        if delta.get("content") == "" and delta.get("tool_calls"):
            del delta["content"]  # it stands beside every tool call
    return cleaned


def usage_chunk(chunk: dict[str, Any], usage: dict[str, Any]) -> dict[str, Any]:
    """The chunk that ends a stream whose client asked for usage."""
    kept: dict[str, Any] = {key: value for key, value in chunk.items() if key in _KEPT}
    return {**kept, "choices": [], "usage": clean_usage(_without_none(usage))}


def clean_usage(usage: dict[str, Any]) -> dict[str, Any]:
    """Usage as far as the provider reported it: LiteLLM writes 0 reasoning tokens for providers that count none."""
    cleaned = {key: value for key, value in usage.items() if key not in _LITELLMS_OWN}
    details = cleaned.get("completion_tokens_details")
    if isinstance(details, dict) and not details.get("reasoning_tokens"):
        details = {key: value for key, value in details.items() if key != "reasoning_tokens"}
        cleaned["completion_tokens_details"] = details
    return {key: value for key, value in cleaned.items() if value != {}}


def sse(data: dict[str, Any]) -> bytes:
    """One event."""
    return b"data: " + _encode(data) + b"\n\n"


def _without_none(value: Any) -> Any:
    """The same without what LiteLLM left empty: null members, objects of nothing else, and empty lists of Google's."""
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    if not isinstance(value, dict):
        return value
    cleaned = {key: _without_none(item) for key, item in value.items() if item is not None}
    return {
        key: item
        for key, item in cleaned.items()
        if not ((item == {} and key.endswith("_fields")) or (item == [] and key.startswith(_OFTEN_EMPTY)))
    }
