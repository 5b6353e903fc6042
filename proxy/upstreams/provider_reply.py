"""Replies made in place of a provider's own bytes: whole JSON bodies, and any provider's error in OpenAI's shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from multidict import CIMultiDict

from predawn.proxy.exchange import Reply
from predawn.proxy.wire.fold import whole_body
from predawn.proxy.wire.headers import to_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 404: "model_not_found", 413: "request_too_large", 429: "rate_limit_exceeded"}
_STATUS = {
    # https://docs.anthropic.com/en/api/errors: inside of a stream the word is all there is
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_TOO_LONG = ("prompt is too long", "exceeds the maximum number of tokens", "maximum context length", "context window")
_MESSAGE_CHARS = 2000


@dataclass(frozen=True, slots=True)
class ProviderError:
    """What a provider said went wrong."""

    status: int
    message: str
    word: str | None = None
    """The provider's own name for it: `overloaded_error`, `RESOURCE_EXHAUSTED`."""
    retry_after: str | None = None
    param: str | None = None


class BodySource:
    """A whole body as a source; there is nothing behind it to close."""

    __slots__ = ("_body",)

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        body, self._body = self._body, None
        if not body:
            raise StopAsyncIteration
        return body

    async def aclose(self) -> None:
        self._body = None


def json_reply(status: int, headers: Mapping[str, str], body: Any) -> Reply:
    """A reply with `body` as JSON, and those of a provider's headers that describe its service and not its body."""
    kept = to_client(headers)
    kept["Content-Type"] = "application/json"
    return Reply(status, kept, source=BodySource(_encode(body)), split=whole_body)


def error_reply(error: ProviderError, headers: Mapping[str, str]) -> Reply:
    """`error` as OpenAI's API would tell it; `retry-after` stays, and is added where only the body had it."""
    too_long = error.status == 400 and any(words in error.message.lower() for words in _TOO_LONG)
    body = {
        "message": error.message,
        "type": _TYPES.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error"),
        "param": error.param,
        "code": "context_length_exceeded" if too_long else _CODES.get(error.status, error.word),
    }
    reply = json_reply(error.status, headers, {"error": body})
    if error.retry_after is not None and "retry-after" not in reply.headers:
        reply.headers = CIMultiDict({**reply.headers, "Retry-After": error.retry_after})
    return reply


def read_error(body: bytes, status: int) -> ProviderError | None:
    """The error in a provider's body, be it JSON, a list of JSON objects or a stream; `None` if it holds none.

    A body that came with an error status is an error in any case; without one, an error names its status itself.
    """
    for data in _objects(body):
        error = data.get("error")
        if isinstance(error, dict):
            return _from_object(error, status)
        if isinstance(error, str) and status >= 400:
            return ProviderError(status, error)
        message = data.get("message") or data.get("detail")
        if status >= 400 and isinstance(message, str):
            return ProviderError(status, message[:_MESSAGE_CHARS])
    if status < 400:
        return None
    text = body[:_MESSAGE_CHARS].decode("utf-8", "replace").strip()
    readable = text if text and not text.startswith("<") else f"The provider answered {status} without a reason."
    return ProviderError(status, readable)


def _objects(body: bytes) -> Iterator[dict[str, Any]]:
    payloads = [body]
    if not body.lstrip().startswith((b"{", b"[")):
        payloads = [line[5:] for line in body.splitlines() if line.startswith(b"data:")]
    for payload in payloads:
        try:
            data = _decode(payload)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            continue
        yield from (item for item in (data if isinstance(data, list) else [data]) if isinstance(item, dict))


def _from_object(error: dict[str, Any], status: int) -> ProviderError:
    word = error.get("status") if isinstance(error.get("status"), str) else error.get("type") or error.get("code")
    number = error.get("code")
    if status < 400:
        status = number if isinstance(number, int) and 400 <= number <= 599 else _STATUS.get(str(word), 502)
    message = error.get("message")
    return ProviderError(
        status,
        message[:_MESSAGE_CHARS] if isinstance(message, str) and message else f"The provider answered {status}.",
        word if isinstance(word, str) else None,
        _retry_delay(error.get("details")),
    )


def _retry_delay(details: Any) -> str | None:
    """Google sends `google.rpc.RetryInfo` where others send `retry-after`: `{"retryDelay": "17s"}`."""
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        if isinstance(delay, str) and delay.endswith("s"):
            try:
                return f"{max(0.0, float(delay[:-1])):g}"
            except ValueError:
                return None
    return None
