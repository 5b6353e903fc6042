"""Messages in Anthropic's words: https://docs.anthropic.com/en/api/messages-streaming. Named events, no `[DONE]`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from predawn.proxy.upstreams.scripted.reading import mapping, mappings, strings, texts_in, tool, whole_number
from predawn.proxy.upstreams.scripted.speech import Ask, Choice, Event, Events, Speech, Tool

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def understand(request: Mapping[str, Any]) -> Ask:
    choice = mapping(request.get("tool_choice"))
    return Ask(
        model=str(request.get("model", "")),
        texts=(*texts_in(request.get("system")), *texts_in(request.get("messages"))),
        stream=request.get("stream") is True,
        limit=whole_number(request.get("max_tokens")),
        stop=strings(request.get("stop_sequences")),
        tools=_tools(request, choice),
        parallel=choice.get("disable_parallel_tool_use") is False,
    )


def _tools(request: Mapping[str, Any], choice: Mapping[str, Any]) -> tuple[Tool, ...]:
    messages = mappings(request.get("messages"))
    parts = mappings(messages[-1].get("content")) if messages else []
    if choice.get("type") == "none" or any(part.get("type") == "tool_result" for part in parts):
        return ()
    named = choice.get("name")
    offered = [item for item in mappings(request.get("tools")) if "name" in item]
    return tuple(tool(item["name"], item.get("input_schema")) for item in offered if named in (None, item["name"]))


def _usage(speech: Speech, output_tokens: int) -> dict[str, Any]:
    counted = {
        "input_tokens": speech.prompt_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": output_tokens,
    }
    return {**counted, **speech.replaced_usage}


def _head(speech: Speech, content: list[Any], stop: str | None, output_tokens: int) -> dict[str, Any]:
    return {
        "id": f"msg_{speech.id}",
        "type": "message",
        "role": "assistant",
        "model": speech.model,
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": _usage(speech, output_tokens),
    }


def whole(_ask: Ask, speech: Speech) -> dict[str, Any]:
    choice = speech.choices[0]
    blocks = []
    for start, deltas in _blocks(choice):
        text = "".join(piece for _, piece in deltas)
        if start["type"] == "tool_use":
            blocks.append({**start, "input": _object(text)})
        elif start["type"] == "thinking":
            blocks.append({**start, "thinking": text, "signature": "scripted"})
        else:
            blocks.append({**start, "text": text})
    return _head(speech, blocks, STOP_REASONS.get(choice.finish, choice.finish), speech.output_tokens)


def _object(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return {}


_Blocks = list[tuple[dict[str, Any], list[tuple[str, str]]]]


def _blocks(choice: Choice) -> _Blocks:
    """The blocks of the content: how each starts, and its deltas as (kind, piece)."""
    blocks: _Blocks = []
    start: dict[str, Any]
    if choice.reasoning:
        start = {"type": "thinking", "thinking": "", "signature": ""}
        blocks.append((start, [("thinking_delta", piece) for piece in choice.reasoning]))
    if choice.tokens or not choice.calls:
        blocks.append(({"type": "text", "text": ""}, [("text_delta", token) for token in choice.tokens]))
    for call in choice.calls:
        start = {"type": "tool_use", "id": call.id.replace("call_", "toolu_"), "name": call.name, "input": {}}
        blocks.append((start, [("input_json_delta", piece) for piece in call.pieces]))
    return blocks


MEMBERS = {"thinking_delta": "thinking", "text_delta": "text", "input_json_delta": "partial_json"}


def events(_ask: Ask, speech: Speech) -> Events:
    choice = speech.choices[0]
    for data, tokens in _stream(choice, speech):
        yield Event(data, name=data["type"], tokens=tokens)


def _stream(choice: Choice, speech: Speech) -> Iterator[tuple[dict[str, Any], int]]:
    yield {"type": "message_start", "message": _head(speech, [], None, 1)}, 0
    for index, (start, deltas) in enumerate(_blocks(choice)):
        yield {"type": "content_block_start", "index": index, "content_block": start}, 0
        if index == 0:
            yield {"type": "ping"}, 0
        for kind, piece in deltas:
            delta = {"type": kind, MEMBERS[kind]: piece}
            yield {"type": "content_block_delta", "index": index, "delta": delta}, 1
        if start["type"] == "thinking":
            signature = {"type": "signature_delta", "signature": "scripted"}
            yield {"type": "content_block_delta", "index": index, "delta": signature}, 0
        yield {"type": "content_block_stop", "index": index}, 0
    stop = {"stop_reason": STOP_REASONS.get(choice.finish, choice.finish), "stop_sequence": None}
    yield {"type": "message_delta", "delta": stop, "usage": _usage(speech, speech.output_tokens)}, 0
    yield {"type": "message_stop"}, 0
