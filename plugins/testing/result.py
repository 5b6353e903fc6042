"""What came of one request: what the client got, what the upstream got, and what is on the record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from predawn.proxy.exchange import Chunk, Exchange, Ledger, RouteName
from predawn.proxy.wire.fold import fold
from predawn.proxy.wire.sse import EventSplitter, event_chunk

if TYPE_CHECKING:
    from predawn.proxy.upstreams.scripted import Received, ScriptedUpstream

_decode = msgspec.json.Decoder().decode
T = TypeVar("T")


@dataclass(frozen=True)
class RunResult:
    """One request through the whole proxy. Made by `run_plugin`."""

    route: RouteName
    status: int
    headers: Mapping[str, str]
    raw: bytes
    """The body as the client got it, without HTTP's framing: byte for byte what the wire carried."""
    finished: bool
    """True if the answer ended as HTTP has it; false if it was cut off or the client went away."""
    upstream: ScriptedUpstream
    done: Exchange | None
    """The exchange, if the request was admitted; `exchange` says so if not."""
    trailers: Mapping[str, str] = field(default_factory=dict[str, str])
    """The headers that came behind a stream."""

    @property
    def exchange(self) -> Exchange:
        """The finished exchange."""
        return _there(self.done, f"the request was refused before it became an exchange: {self.raw!r}")

    @property
    def ledger(self) -> Ledger:
        return self.exchange.ledger

    @property
    def outcome(self) -> str:
        return self.exchange.outcome

    @property
    def sent(self) -> Received:
        """The last request that reached the upstream."""
        return _there(self.requests[-1] if self.requests else None, "nothing was sent to the upstream")

    @property
    def requests(self) -> Sequence[Received]:
        """Everything that reached the upstream since it was made."""
        return self.upstream.requests

    @property
    def streamed(self) -> bool:
        return self.headers.get("Content-Type", "").startswith("text/event-stream")

    @property
    def chunks(self) -> list[Chunk]:
        """The events of a stream, `[DONE]` and comments included; empty for an answer that did not stream."""
        if not self.streamed:
            return []
        splitter = EventSplitter()
        rest = [*splitter.feed(self.raw), splitter.rest()]
        return [event_chunk(raw) for raw in rest if raw]

    @property
    def body(self) -> dict[str, Any]:
        """The answer as one object: decoded, or folded from a stream as far as it came."""
        if not self.streamed:
            decoded = _decode(self.raw)
            return decoded if isinstance(decoded, dict) else {}
        events = [data for chunk in self.chunks if (data := chunk.data) is not None]
        said = [data for data in events if "error" not in data]
        return fold(said or events, self.route) if events else {}

    @property
    def error(self) -> dict[str, Any]:
        """The error object of a refusal, or of the event that ended a stream; empty where all went well."""
        told = [chunk.data for chunk in self.chunks if chunk.data] if self.streamed else [self.body]
        return next((data["error"] for data in told if isinstance(data.get("error"), dict)), {})

    @property
    def message(self) -> dict[str, Any]:
        """The first choice's message of a chat answer: `content`, `tool_calls` and all."""
        choices = self.body.get("choices") or [{}]
        message: dict[str, Any] = choices[0].get("message") or {}
        return message

    @property
    def usage(self) -> dict[str, Any]:
        """The usage as the client was told it; empty if it was not."""
        return self.body.get("usage") or {}

    @property
    def text(self) -> str:
        """What was said: the text of the first choice."""
        return next(iter(self.texts), "")

    @property
    def texts(self) -> list[str]:
        """What was said, choice by choice; of a stream, as far as it came."""
        if self.route in ("chat", "completions"):
            return [_said(choice) for choice in self.body.get("choices") or ()]
        return [_piecewise(self.chunks) if self.streamed else _in_blocks(self.body)]

    def __repr__(self) -> str:
        return f"<RunResult {self.status} {self.raw[:200]!r}>"


def _there(value: T | None, otherwise: str) -> T:
    if value is None:
        raise AssertionError(otherwise)
    return value


def _said(choice: Mapping[str, Any]) -> str:
    said = choice.get("text") if "text" in choice else (choice.get("message") or {}).get("content")
    return said if isinstance(said, str) else ""


def _piecewise(chunks: Sequence[Chunk]) -> str:
    """The text deltas of `/v1/responses` and `/v1/messages`."""
    pieces: list[str] = []
    for chunk in chunks:
        data = chunk.data or {}
        if data.get("type") == "response.output_text.delta":
            pieces.append(data["delta"])
        elif data.get("type") == "content_block_delta":
            pieces.append(data["delta"].get("text", ""))
    return "".join(pieces)


def _in_blocks(body: Mapping[str, Any]) -> str:
    items = [item for item in body.get("output") or () if item.get("type") == "message"] or [body]
    blocks = [block for item in items for block in item.get("content") or ()]
    return "".join(block.get("text", "") for block in blocks)
