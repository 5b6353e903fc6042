"""Responses in OpenAI's words: https://platform.openai.com/docs/api-reference/responses-streaming. No `[DONE]`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from predawn.proxy.upstreams.scripted.reading import mapping, mappings, texts_in, tool, whole_number
from predawn.proxy.upstreams.scripted.speech import CREATED, Ask, Call, Choice, Event, Events, Speech, Tool

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def understand(request: Mapping[str, Any]) -> Ask:
    wanted = mapping(mapping(request.get("text")).get("format"))
    return Ask(
        model=str(request.get("model", "")),
        texts=(*texts_in(request.get("instructions")), *texts_in(request.get("input"))),
        stream=request.get("stream") is True,
        limit=whole_number(request.get("max_output_tokens")),
        tools=_tools(request),
        parallel=request.get("parallel_tool_calls") is True,
        schema=mapping(wanted.get("schema")) if wanted.get("type") == "json_schema" else None,
    )


def _tools(request: Mapping[str, Any]) -> tuple[Tool, ...]:
    choice = request.get("tool_choice", "auto")
    items = mappings(request.get("input"))
    if choice == "none" or (items and items[-1].get("type") == "function_call_output"):
        return ()
    named = mapping(choice).get("name")
    offered = [item for item in mappings(request.get("tools")) if item.get("type") == "function" and "name" in item]
    return tuple(tool(item["name"], item.get("parameters")) for item in offered if named in (None, item["name"]))


def _usage(speech: Speech) -> dict[str, Any]:
    counted = {
        "input_tokens": speech.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": speech.output_tokens,
        "output_tokens_details": {"reasoning_tokens": speech.reasoning_tokens},
        "total_tokens": speech.prompt_tokens + speech.output_tokens,
    }
    return {**counted, **speech.replaced_usage}


def _response(speech: Speech, *, output: list[Any] | None) -> dict[str, Any]:
    """The response object: in progress while it has no output."""
    cut = output is not None and speech.choices[0].finish == "length"
    return {
        "id": f"resp_{speech.id}",
        "object": "response",
        "created_at": CREATED,
        "status": "in_progress" if output is None else "incomplete" if cut else "completed",
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "instructions": None,
        "metadata": {},
        "model": speech.model,
        "output": output or [],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": None if output is None else _usage(speech),
    }


def whole(_ask: Ask, speech: Speech) -> dict[str, Any]:
    return _response(speech, output=[item for item, _ in _items(speech)])


def _items(speech: Speech) -> Iterator[tuple[dict[str, Any], tuple[str, ...]]]:
    """The finished output items, and the pieces their text streams in."""
    choice = speech.choices[0]
    if choice.reasoning:
        text = {"type": "reasoning_text", "text": "".join(choice.reasoning)}
        yield {"id": f"rs_{speech.id}", "type": "reasoning", "summary": [], "content": [text]}, choice.reasoning
    if choice.tokens or not choice.calls:
        yield _message(speech, choice), choice.tokens
    for call in choice.calls:
        yield _function_call(call), call.pieces


def _message(speech: Speech, choice: Choice) -> dict[str, Any]:
    text = {"type": "output_text", "text": choice.text, "annotations": [], "logprobs": []}
    return {
        "id": f"msg_{speech.id}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [text],
    }


def _function_call(call: Call) -> dict[str, Any]:
    return {
        "id": call.id.replace("call_", "fc_"),
        "type": "function_call",
        "status": "completed",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
    }


def events(_ask: Ask, speech: Speech) -> Events:
    items = list(_items(speech))
    finished = _response(speech, output=[item for item, _ in items])
    last = f"response.{finished['status']}"
    parts = [
        ({"type": "response.created", "response": _response(speech, output=None)}, 0),
        ({"type": "response.in_progress", "response": _response(speech, output=None)}, 0),
        *(part for index, (item, pieces) in enumerate(items) for part in _item_events(index, item, pieces)),
        ({"type": last, "response": finished}, 0),
    ]
    for number, (data, tokens) in enumerate(parts):
        yield Event({**data, "sequence_number": number}, name=data["type"], tokens=tokens)


def _item_events(index: int, item: dict[str, Any], pieces: tuple[str, ...]) -> Iterator[tuple[dict[str, Any], int]]:
    where = {"item_id": item["id"], "output_index": index}
    yield {"type": "response.output_item.added", "output_index": index, "item": _begun(item)}, 0
    if item["type"] == "function_call":
        for piece in pieces:
            yield {"type": "response.function_call_arguments.delta", **where, "delta": piece}, 1
        done = {"arguments": item["arguments"], "name": item["name"]}
        yield {"type": "response.function_call_arguments.done", **where, **done}, 0
    else:
        yield from _text_events(where, item["content"][0], pieces)
    yield {"type": "response.output_item.done", "output_index": index, "item": item}, 0


def _text_events(
    where: dict[str, Any], part: dict[str, Any], pieces: tuple[str, ...]
) -> Iterator[tuple[dict[str, Any], int]]:
    kind = part["type"]
    where = {**where, "content_index": 0}
    extra: dict[str, Any] = {"logprobs": []} if kind == "output_text" else {}
    yield {"type": "response.content_part.added", **where, "part": {**part, "text": ""}}, 0
    for piece in pieces:
        yield {"type": f"response.{kind}.delta", **where, "delta": piece, **extra}, 1
    yield {"type": f"response.{kind}.done", **where, "text": part["text"], **extra}, 0
    yield {"type": "response.content_part.done", **where, "part": part}, 0


def _begun(item: dict[str, Any]) -> dict[str, Any]:
    """An item as it is announced, before anything of it was generated."""
    if item["type"] == "function_call":
        return {**item, "status": "in_progress", "arguments": ""}
    if item["type"] == "message":
        return {**item, "status": "in_progress", "content": []}
    return {**item, "content": []}
