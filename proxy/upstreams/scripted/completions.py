"""Legacy completions in OpenAI's words: https://platform.openai.com/docs/api-reference/completions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from predawn.proxy.upstreams.scripted.chat import usage
from predawn.proxy.upstreams.scripted.reading import mapping, strings, texts_in, whole_number
from predawn.proxy.upstreams.scripted.speech import CREATED, Ask, Event, Events, Speech

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def understand(request: Mapping[str, Any]) -> Ask:
    prompt = request.get("prompt")
    many = isinstance(prompt, list) and bool(prompt) and isinstance(prompt[0], str | list)
    return Ask(
        model=str(request.get("model", "")),
        texts=tuple(texts_in(prompt)),
        n=whole_number(request.get("n")) or 1,
        prompts=len(prompt) if many and isinstance(prompt, list) else 1,
        seed=whole_number(request.get("seed")),
        stream=request.get("stream") is True,
        include_usage=mapping(request.get("stream_options")).get("include_usage") is True,
        limit=whole_number(request.get("max_tokens")),
        stop=strings(request.get("stop")),
        logprobs=whole_number(request.get("logprobs")),
    )


def whole(ask: Ask, speech: Speech) -> dict[str, Any]:
    choices = [_choice(ask, index, choice.tokens, finish=choice.finish) for index, choice in enumerate(speech.choices)]
    return {**_head(speech), "choices": choices, "usage": usage(speech)}


def events(ask: Ask, speech: Speech) -> Events:
    head = _head(speech)
    tail = {"usage": None} if ask.include_usage else {}
    for index, choice in enumerate(speech.choices):
        offset = 0
        for token in choice.tokens:
            yield Event({**head, "choices": [_choice(ask, index, (token,), offset)], **tail}, tokens=1)
            offset += len(token)
        yield Event({**head, "choices": [_choice(ask, index, (), offset, finish=choice.finish)], **tail})
    if ask.include_usage:
        yield Event({**head, "choices": [], "usage": usage(speech)})


def _head(speech: Speech) -> dict[str, Any]:
    return {
        "id": f"cmpl-{speech.id}",
        "object": "text_completion",
        "created": CREATED,
        "model": speech.model,
        "system_fingerprint": "fp_scripted",
    }


def _choice(
    ask: Ask, index: int, tokens: Sequence[str], offset: int = 0, *, finish: str | None = None
) -> dict[str, Any]:
    logprobs = _logprobs(ask, tokens, offset)
    return {"text": "".join(tokens), "index": index, "logprobs": logprobs, "finish_reason": finish}


def _logprobs(ask: Ask, tokens: Sequence[str], offset: int) -> dict[str, Any] | None:
    if ask.logprobs is None:
        return None
    offsets = [offset + sum(len(token) for token in tokens[:place]) for place in range(len(tokens))]
    top = [{f"{token}{rank or ''}": -0.25 - rank for rank in range(ask.logprobs or 0)} for token in tokens]
    return {
        "tokens": list(tokens),
        "token_logprobs": [-0.25] * len(tokens),
        "top_logprobs": top,
        "text_offset": offsets,
    }
