"""Chat completions in OpenAI's words: https://platform.openai.com/docs/api-reference/chat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from predawn.proxy.upstreams.scripted.reading import mapping, mappings, strings, texts_in, tool, whole_number
from predawn.proxy.upstreams.scripted.speech import CREATED, Ask, Call, Choice, Event, Events, Speech, Tool

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def understand(request: Mapping[str, Any]) -> Ask:
    wanted = mapping(request.get("response_format"))
    return Ask(
        model=str(request.get("model", "")),
        texts=tuple(texts_in(request.get("messages"))),
        n=whole_number(request.get("n")) or 1,
        seed=whole_number(request.get("seed")),
        stream=request.get("stream") is True,
        include_usage=mapping(request.get("stream_options")).get("include_usage") is True,
        limit=whole_number(request.get("max_completion_tokens"), request.get("max_tokens")),
        stop=strings(request.get("stop")),
        tools=_tools(request),
        parallel=request.get("parallel_tool_calls") is True,
        schema=_schema(wanted),
        logprobs=(whole_number(request.get("top_logprobs")) or 0) if request.get("logprobs") is True else None,
    )


def _schema(wanted: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if wanted.get("type") == "json_schema":
        return mapping(mapping(wanted.get("json_schema")).get("schema"))
    if wanted.get("type") == "json_object":
        return {"type": "object", "properties": {"answer": {"type": "string"}}}
    return None


def _tools(request: Mapping[str, Any]) -> tuple[Tool, ...]:
    """The tools that are to be called: none once their results are in the messages."""
    choice = request.get("tool_choice", "auto")
    messages = mappings(request.get("messages"))
    if choice == "none" or (messages and messages[-1].get("role") == "tool"):
        return ()
    named = mapping(mapping(choice).get("function")).get("name")
    functions = [mapping(item.get("function")) for item in mappings(request.get("tools"))]
    return tuple(
        tool(function["name"], function.get("parameters"))
        for function in functions
        if "name" in function and named in (None, function["name"])
    )


def usage(speech: Speech) -> dict[str, Any]:
    counted = {
        "prompt_tokens": speech.prompt_tokens,
        "completion_tokens": speech.output_tokens,
        "total_tokens": speech.prompt_tokens + speech.output_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": speech.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
    return {**counted, **speech.replaced_usage}


def whole(ask: Ask, speech: Speech) -> dict[str, Any]:
    return {
        **_head(speech, "chat.completion"),
        "choices": [_whole_choice(ask, index, choice) for index, choice in enumerate(speech.choices)],
        "usage": usage(speech),
    }


def _head(speech: Speech, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{speech.id}",
        "object": kind,
        "created": CREATED,
        "model": speech.model,
        "service_tier": "default",
        "system_fingerprint": "fp_scripted",
    }


def _whole_choice(ask: Ask, index: int, choice: Choice) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": choice.text if choice.tokens or not choice.calls else None,
        "refusal": None,
        "annotations": [],
    }
    if choice.reasoning:
        message["reasoning_content"] = "".join(choice.reasoning)
    if choice.calls:
        message["tool_calls"] = [_call(call, call.arguments) for call in choice.calls]
    return {
        "index": index,
        "message": message,
        "logprobs": _logprobs(ask, choice.tokens),
        "finish_reason": choice.finish,
    }


def _call(call: Call, arguments: str) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _logprobs(ask: Ask, tokens: tuple[str, ...]) -> dict[str, Any] | None:
    if ask.logprobs is None:
        return None
    return {"content": [_logprob(token, ask.logprobs) for token in tokens], "refusal": None}


def _logprob(token: str, top: int) -> dict[str, Any]:
    def at(text: str, value: float) -> dict[str, Any]:
        return {"token": text, "logprob": value, "bytes": list(text.encode())}

    others = [at(token if rank == 0 else f"{token}{rank}", -0.25 - rank) for rank in range(top)]
    return {**at(token, -0.25), "top_logprobs": others}


def events(ask: Ask, speech: Speech) -> Events:
    """The stream; `usage` is null in each chunk and full in the last one, if it was asked for, else absent."""
    head = _head(speech, "chat.completion.chunk")
    tail = {"usage": None} if ask.include_usage else {}
    for index, delta, logprobs, finish, tokens in _interleaved(ask, speech):
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        yield Event({**head, "choices": [choice], **tail}, tokens=tokens)
    if ask.include_usage:
        yield Event({**head, "choices": [], "usage": usage(speech)})


_Part = tuple[dict[str, Any], Any, str | None, int]


def _interleaved(ask: Ask, speech: Speech) -> Iterator[tuple[int, dict[str, Any], Any, str | None, int]]:
    """Pieces of the choices by turns, as a server that generates them side by side sends them."""
    sources = {index: _parts(ask, choice) for index, choice in enumerate(speech.choices)}
    while sources:
        for index, parts in tuple(sources.items()):
            part = next(parts, None)
            if part is None:
                del sources[index]
            else:
                yield (index, *part)


def _parts(ask: Ask, choice: Choice) -> Iterator[_Part]:
    content = "" if choice.tokens or not choice.calls else None
    yield {"role": "assistant", "content": content, "refusal": None}, None, None, 0
    for piece in choice.reasoning:
        yield {"reasoning_content": piece}, None, None, 1
    for token in choice.tokens:
        yield {"content": token}, _logprobs(ask, (token,)), None, 1
    for place, call in enumerate(choice.calls):
        yield {"tool_calls": [{"index": place, **_call(call, "")}]}, None, None, 0
        for piece in call.pieces:
            yield {"tool_calls": [{"index": place, "function": {"arguments": piece}}]}, None, None, 1
    yield {}, None, choice.finish, 0
