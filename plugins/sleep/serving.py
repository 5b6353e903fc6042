"""`serve: exact`: a verified answer that was worked out before, to a request in which nothing else could change it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec

from predawn.plugins import Chunk, Exchange, Reply
from predawn.plugins.sleep.contexts import Anticipated

if TYPE_CHECKING:
    from predawn.plugins.sleep.index import Match

_encode = msgspec.json.Encoder(order="sorted").encode
HEADER = "x-predawn-sleep"
LIMITS = ("max_tokens", "max_completion_tokens")
_DELIVERY = frozenset({"model", "messages", "stream", "stream_options", "metadata", *LIMITS})
"""Members that are compared on their own, or say how an answer is delivered and not what it is."""


def conditions_of(request: Mapping[str, Any]) -> str:
    """A digest of all that an answer depends on beside the conversation: tools, sampling parameters, format, user."""
    members = {name: value for name, value in request.items() if name not in _DELIVERY and value is not None}
    if members.get("n") == 1:
        del members["n"]
    return sha256(_encode(members)).hexdigest()


NO_CONDITIONS = conditions_of({})
"""Those of a request that has only a model and messages."""


def may_be_served(found: Anticipated, match: Match, request: Mapping[str, Any], model: str, messages: int) -> bool:
    """True if the request differs in nothing from the one that the answer was given to.

    `messages` is how many the request has. That the question is the same has been seen; tenant, system prompt and all
    else before it are part of the match.
    """
    is_all = match.at == (messages if match.split is not None else messages - 1)
    return (
        found.verified
        and is_all
        and (found.context_id, found.version) == (match.context_id, match.version)
        and found.model == model
        and found.conditions == conditions_of(request)
        and all(_has_room(request.get(name), found.answer) for name in LIMITS)
    )


def _has_room(limit: Any, answer: str) -> bool:
    """A token is a byte at least."""
    return limit is None or (isinstance(limit, int) and len(answer.encode("utf-8", "replace")) <= limit)


def reply_of(exchange: Exchange, answer: str) -> Reply:
    """The answer in the words of chat completions. It cost nothing now, and its usage says so."""
    options = exchange.request.get("stream_options")
    tells = not exchange.stream or (isinstance(options, dict) and options.get("include_usage") is True)
    chunks = _chunks(answer, exchange.model, exchange.arrived_at, tells_usage=tells)
    return Reply.of_chunks(chunks, headers={"Content-Type": "text/event-stream", HEADER: "exact"})


async def _chunks(answer: str, model: str, created: float, *, tells_usage: bool) -> AsyncIterator[Chunk]:
    frame = {
        "id": f"chatcmpl-sleep-{secrets.token_hex(8)}",
        "object": "chat.completion.chunk",
        "created": int(created),
        "model": model,
    }
    said = {"index": 0, "delta": {"role": "assistant", "content": answer}, "finish_reason": None, "logprobs": None}
    over = {"index": 0, "delta": {}, "finish_reason": "stop", "logprobs": None}
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    yield Chunk.of({**frame, "choices": [said]})
    yield Chunk.of({**frame, "choices": [over]})
    if tells_usage:
        yield Chunk.of({**frame, "choices": [], "usage": usage})
    yield Chunk(b"data: [DONE]\n\n", is_last=True)
