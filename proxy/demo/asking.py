"""One question and its answer as it streams: what a user's program does, with the standard library alone."""

from __future__ import annotations

import http.client
import json
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from predawn.proxy.demo.questions import Question

ANSWER_TIMEOUT_S = 180.0


class AskingError(Exception):
    """There is no complete answer; the message says why."""


@dataclass(slots=True)
class Answered:
    """What came back, and when; seconds are counted from the request."""

    title: str
    request_id: str = ""
    text: str = ""
    first_s: float | None = None
    """When the first token came."""
    content_s: float | None = None
    """When the first token of the answer itself came, thoughts aside."""
    total_s: float = 0.0
    prompt_tokens: int | None = None
    cached_tokens: int = 0
    output_tokens: int | None = None
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks one model at one address."""

    base_url: str
    """`/v1` included."""
    model: str
    clock: Callable[[], float] = time.monotonic

    def ask(self, question: Question, tell: Callable[[str, str], None]) -> Answered:
        """Ask, and `tell(kind, text)` of each piece as it comes: `thought` or `answer`. Raises `AskingError`."""
        url = urllib.parse.urlsplit(self.base_url)
        assert url.hostname is not None
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=ANSWER_TIMEOUT_S)
        began = self.clock()
        try:
            response = self._sent(connection, f"{url.path}/chat/completions", question)
            answered = Answered(question.title, response.headers.get("x-request-id", ""))
            for event in _events(response):
                _take(event, answered, tell, self.clock() - began)
        except (OSError, http.client.HTTPException, ValueError) as exc:
            raise AskingError(f"the request failed: {exc}") from exc
        finally:
            connection.close()
        answered.total_s = self.clock() - began
        return answered

    def _sent(self, connection: http.client.HTTPConnection, path: str, question: Question) -> http.client.HTTPResponse:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": question.text}],
            "stream": True,
            "stream_options": {"include_usage": True},
            **question.options,
        }
        headers = {"Content-Type": "application/json", "Authorization": "Bearer demo"}
        connection.request("POST", path, json.dumps(body), headers)
        response = connection.getresponse()
        if response.status != 200:
            raise AskingError(f"the request failed with {response.status}: {_reason(response.read())}")
        return response


def _events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """The stream's events. Raises `AskingError` unless it ends as it should."""
    for line in response:
        if line.strip() == b"data: [DONE]":
            return
        if line.startswith(b"data:"):
            event = json.loads(line[5:])
            if "error" in event:
                raise AskingError(f"the answer broke off: {event['error'].get('message')}")
            yield event
    raise AskingError("the answer broke off")


def _take(event: dict[str, Any], answered: Answered, tell: Callable[[str, str], None], now_s: float) -> None:
    for choice in event.get("choices") or ():
        delta = choice.get("delta") or {}
        thought = delta.get("reasoning_content") or delta.get("reasoning") or ""
        text = delta.get("content") or ""
        if (thought or text) and answered.first_s is None:
            answered.first_s = now_s
        if thought:
            tell("thought", thought)
        if text:
            answered.content_s = now_s if answered.content_s is None else answered.content_s
            answered.text += text
            tell("answer", text)
    if usage := event.get("usage"):
        answered.prompt_tokens = usage.get("prompt_tokens")
        answered.output_tokens = usage.get("completion_tokens")
        answered.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        answered.reasoning_tokens = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0


def _reason(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")
