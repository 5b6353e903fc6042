"""What the local engine says, in OpenAI's words: bodies and streams of chat and of completions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from multidict import CIMultiDict

from predawn.proxy.exchange import Reply
from predawn.proxy.upstreams.provider_reply import BodySource
from predawn.proxy.wire.fold import whole_body

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DONE = b"data: [DONE]\n\n"
STREAM_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8"}
_encode = msgspec.json.Encoder().encode


class Score(Protocol):
    """A token and how likely it was."""

    @property
    def text(self) -> str: ...
    @property
    def raw(self) -> bytes: ...
    @property
    def logprob(self) -> float: ...
    @property
    def top(self) -> Sequence[tuple[str, bytes, float]]: ...
    @property
    def offset(self) -> int: ...


class Piece(Protocol):
    """More of one choice."""

    @property
    def index(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def reasoning(self) -> str: ...
    @property
    def finish(self) -> str | None: ...
    @property
    def scores(self) -> Sequence[Score] | None: ...
    @property
    def reasoning_scores(self) -> Sequence[Score] | None: ...


class Counts(Protocol):
    """What an answer took, in tokens."""

    @property
    def prompt(self) -> int: ...
    @property
    def cached(self) -> int: ...
    @property
    def output(self) -> int: ...
    @property
    def reasoning(self) -> int: ...


class Refusal(Protocol):
    """Why a request was not taken."""

    @property
    def status(self) -> int: ...
    @property
    def message(self) -> str: ...
    @property
    def code(self) -> str | None: ...
    @property
    def param(self) -> str | None: ...
    @property
    def retry_after_s(self) -> float | None: ...


class Wording(Protocol):
    """One endpoint's words for an answer."""

    def piece(self, piece: Piece) -> bytes:
        """The events that tell a piece."""
        ...

    def end(self, counts: Counts) -> bytes:
        """The events after the last piece."""
        ...

    def whole(self, pieces: Iterable[Piece], counts: Counts) -> bytes:
        """The body that tells everything at once; one piece per choice."""
        ...


def usage(counts: Counts) -> dict[str, Any]:
    """Tokens as both endpoints tell them."""
    return {
        "prompt_tokens": counts.prompt,
        "completion_tokens": counts.output,
        "total_tokens": counts.prompt + counts.output,
        "prompt_tokens_details": {"cached_tokens": counts.cached},
        "completion_tokens_details": {"reasoning_tokens": counts.reasoning},
    }


class _Words:
    """What the words of both endpoints share."""

    def __init__(self, head: dict[str, Any], *, include_usage: bool) -> None:
        self._head = head
        self._tail = {"usage": None} if include_usage else {}

    def _event(self, *choices: dict[str, Any], **more: Any) -> bytes:
        return b"data: " + _encode({**self._head, "choices": choices, **self._tail, **more}) + b"\n\n"

    def end(self, counts: Counts) -> bytes:
        return (self._event(usage=usage(counts)) if self._tail else b"") + DONE

    def _body(self, choices: Iterable[dict[str, Any]], counts: Counts) -> bytes:
        ordered = sorted(choices, key=lambda choice: choice["index"])
        return _encode({**self._head, "choices": ordered, "usage": usage(counts)})


class ChatWords(_Words):
    """`/v1/chat/completions`: https://platform.openai.com/docs/api-reference/chat."""

    def __init__(self, head: dict[str, Any], *, stream: bool, include_usage: bool) -> None:
        super().__init__(
            {**head, "object": "chat.completion.chunk" if stream else "chat.completion"}, include_usage=include_usage
        )
        self._begun: set[int] = set()

    def piece(self, piece: Piece) -> bytes:
        events: list[bytes] = []

        def add(delta: dict[str, Any], logprobs: Any = None, finish: str | None = None) -> None:
            choice = {"index": piece.index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
            events.append(self._event(choice))

        if piece.index not in self._begun:
            self._begun.add(piece.index)
            add({"role": "assistant", "content": ""})
        if piece.reasoning or piece.reasoning_scores:
            add({"reasoning_content": piece.reasoning}, _chat_logprobs(None, piece.reasoning_scores))
        if piece.text or piece.scores:
            add({"content": piece.text}, _chat_logprobs(piece.scores, None))
        if piece.finish is not None:
            add({}, None, piece.finish)
        return b"".join(events)

    def whole(self, pieces: Iterable[Piece], counts: Counts) -> bytes:
        return self._body([_chat_choice(piece) for piece in pieces], counts)


def _chat_choice(piece: Piece) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": piece.text, "refusal": None}
    if piece.reasoning:
        message["reasoning_content"] = piece.reasoning
    logprobs = _chat_logprobs(piece.scores, piece.reasoning_scores)
    return {"index": piece.index, "message": message, "logprobs": logprobs, "finish_reason": piece.finish}


def _chat_logprobs(scores: Sequence[Score] | None, reasoning: Sequence[Score] | None) -> dict[str, Any] | None:
    """Thoughts stand beside the content: OpenAI's clients expect the tokens of `content` to be its own."""
    if scores is None and reasoning is None:
        return None
    told: dict[str, Any] = {"content": [_chat_score(score) for score in scores or ()], "refusal": None}
    if reasoning:
        told["reasoning_content"] = [_chat_score(score) for score in reasoning]
    return told


def _chat_score(score: Score) -> dict[str, Any]:
    top = [_scored(*other) for other in score.top]
    return {**_scored(score.text, score.raw, score.logprob), "top_logprobs": top}


def _scored(text: str, raw: bytes, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": _finite(logprob), "bytes": list(raw)}


class CompletionWords(_Words):
    """`/v1/completions`: https://platform.openai.com/docs/api-reference/completions."""

    def __init__(self, head: dict[str, Any], *, include_usage: bool) -> None:
        super().__init__({**head, "object": "text_completion"}, include_usage=include_usage)

    def piece(self, piece: Piece) -> bytes:
        return self._event(_completion_choice(piece))

    def whole(self, pieces: Iterable[Piece], counts: Counts) -> bytes:
        return self._body([_completion_choice(piece) for piece in pieces], counts)


def _completion_choice(piece: Piece) -> dict[str, Any]:
    logprobs = None
    if piece.scores is not None:
        logprobs = {
            "tokens": [score.text for score in piece.scores],
            "token_logprobs": [_finite(score.logprob) for score in piece.scores],
            "top_logprobs": [_top(score) for score in piece.scores],
            "text_offset": [score.offset for score in piece.scores],
        }
    return {"index": piece.index, "text": piece.text, "logprobs": logprobs, "finish_reason": piece.finish}


def _top(score: Score) -> dict[str, float]:
    """The chosen token is always among them, as at OpenAI."""
    top: dict[str, float] = {}
    for text, _, logprob in score.top:
        top.setdefault(text, _finite(logprob))
    top.setdefault(score.text, _finite(score.logprob))
    return top


def _finite(logprob: float) -> float:
    """JSON has no infinity; OpenAI writes -9999 for what is all but impossible."""
    return max(logprob, -9999.0) if not math.isnan(logprob) else -9999.0


def refusal(refused: Refusal) -> Reply:
    """A request that was not taken, as a reply with its status."""
    kind = "rate_limit_error" if refused.status == 429 else "invalid_request_error"
    error = {"message": refused.message, "type": kind, "param": refused.param, "code": refused.code}
    headers = CIMultiDict({"Content-Type": "application/json"})
    if refused.retry_after_s is not None:
        headers["Retry-After"] = str(math.ceil(max(refused.retry_after_s, 1.0)))
        headers["Retry-After-Ms"] = str(math.ceil(refused.retry_after_s * 1000))
    return Reply(refused.status, headers, source=BodySource(_encode({"error": error})), split=whole_body)


def whole_reply(body: bytes) -> Reply:
    """An answer that came at once."""
    headers = CIMultiDict({"Content-Type": "application/json"})
    return Reply(200, headers, source=BodySource(body), split=whole_body)
