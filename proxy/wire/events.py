"""Whole bodies of `/v1/messages` and `/v1/responses` as the events that the same answers stream in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from predawn.proxy.exchange import Chunk

_encode = msgspec.json.Encoder().encode
_CALLS = {
    "function_call": ("function_call_arguments", "arguments"),
    "custom_tool_call": ("custom_tool_call_input", "input"),
}
"""What the events of a call's text are called, and which member of the call it is."""
_ENDS = {"failed": "response.failed", "incomplete": "response.incomplete", "cancelled": "response.cancelled"}


def message_events(body: dict[str, Any]) -> list[Chunk]:
    """The events of a message. Raises `ValueError` for a body that is none."""
    content = body.get("content")
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise ValueError("the body is no message")
    return [
        Chunk(_event(data), event=data["type"], is_last=data["type"] == "message_stop")
        for data in _made(_message(body, content), "message")
    ]


def _message(body: dict[str, Any], content: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    head = {**body, "content": [], "stop_reason": None, "stop_sequence": None}
    yield {"type": "message_start", "message": head}
    for index, block in enumerate(content):
        begun, deltas = _block(block)
        yield {"type": "content_block_start", "index": index, "content_block": begun}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    stop = {"stop_reason": body.get("stop_reason"), "stop_sequence": body.get("stop_sequence")}
    yield {"type": "message_delta", "delta": stop, "usage": body.get("usage") or {}}
    yield {"type": "message_stop"}


def _block(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """How a block begins, and its deltas."""
    kind = block.get("type")
    if kind == "text" and isinstance(text := block.get("text"), str):
        cited = [{"type": "citations_delta", "citation": one} for one in block.get("citations") or ()]
        return {**block, "text": "", **({"citations": []} if cited else {})}, [
            *([{"type": "text_delta", "text": text}] if text else []),
            *cited,
        ]
    if kind == "thinking" and isinstance(text := block.get("thinking"), str):
        signed = block.get("signature")
        return {**block, "thinking": "", "signature": ""}, [
            {"type": "thinking_delta", "thinking": text},
            *([{"type": "signature_delta", "signature": signed}] if signed else []),
        ]
    if kind == "tool_use":
        return {**block, "input": {}}, [
            {"type": "input_json_delta", "partial_json": _encode(block.get("input") or {}).decode()}
        ]
    return block, []


def response_events(body: dict[str, Any]) -> list[Chunk]:
    """The events of a response. Raises `ValueError` for a body that is none."""
    output = body.get("output")
    if not isinstance(output, list) or not all(isinstance(item, dict) for item in output):
        raise ValueError("the body is no response")
    last = _ENDS.get(str(body.get("status")), "response.completed")
    return [
        Chunk(_event({**data, "sequence_number": number}), event=data["type"], is_last=data["type"] == last)
        for number, data in enumerate(_made(_response(body, output, last), "response"))
    ]


def _made(events: Iterable[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """All of them. Raises `ValueError` where a member is not what it should be."""
    try:
        return list(events)
    except (TypeError, AttributeError, KeyError) as exc:
        raise ValueError(f"the body is no {kind} ({exc})") from exc


def _response(body: dict[str, Any], output: list[dict[str, Any]], last: str) -> Iterator[dict[str, Any]]:
    begun = {**body, "output": [], "status": "in_progress", "usage": None}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(output):
        yield from _item(index, item)
    yield {"type": last, "response": body}


def _item(index: int, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    where = {"item_id": item.get("id"), "output_index": index}
    begun = {**item, **({"content": []} if isinstance(item.get("content"), list) else {})}
    call = _CALLS.get(str(item.get("type")))
    if call is not None and isinstance(said := item.get(call[1]), str):
        kind, member = call
        named = {"name": item.get("name")} if member == "arguments" else {}
        yield {"type": "response.output_item.added", "output_index": index, "item": {**begun, member: ""}}
        yield {"type": f"response.{kind}.delta", **where, "delta": said}
        yield {"type": f"response.{kind}.done", **where, member: said, **named}
    else:
        summary = item.get("summary") if item.get("type") == "reasoning" else None
        begun |= {"summary": []} if isinstance(summary, list) else {}
        yield {"type": "response.output_item.added", "output_index": index, "item": begun}
        for place, part in enumerate(summary if isinstance(summary, list) else ()):
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield from _summary({**where, "summary_index": place}, part)
        content = item.get("content")
        for place, part in enumerate(content if isinstance(content, list) else ()):
            if isinstance(part, dict):
                yield from _part({**where, "content_index": place}, part)
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _summary(where: dict[str, Any], part: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"type": "response.reasoning_summary_part.added", **where, "part": {**part, "text": ""}}
    yield {"type": "response.reasoning_summary_text.delta", **where, "delta": part["text"]}
    yield {"type": "response.reasoning_summary_text.done", **where, "text": part["text"]}
    yield {"type": "response.reasoning_summary_part.done", **where, "part": part}


def _part(where: dict[str, Any], part: dict[str, Any]) -> Iterator[dict[str, Any]]:
    kind = part.get("type")
    name = "refusal" if kind == "refusal" else "text"
    said = part.get(name)
    extra: dict[str, Any] = {"logprobs": part.get("logprobs") or []} if kind == "output_text" else {}
    is_said = isinstance(said, str) and kind in ("output_text", "refusal", "reasoning_text")
    yield {"type": "response.content_part.added", **where, "part": {**part, name: ""} if is_said else part}
    if is_said:
        yield {"type": f"response.{kind}.delta", **where, "delta": said, **extra}
        yield {"type": f"response.{kind}.done", **where, name: said, **extra}
    yield {"type": "response.content_part.done", **where, "part": part}


def _event(data: dict[str, Any]) -> bytes:
    return b"event: " + str(data["type"]).encode() + b"\ndata: " + _encode(data) + b"\n\n"
