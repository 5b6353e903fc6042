"""Server-sent events, sans-io: bytes in any split go in, whole events with their own bytes come out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from predawn.proxy.exchange import ByteSource, Chunk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
"""Two line ends; atomic, so that one CRLF is never read as two."""
MAX_EVENT_BYTES = 32 << 20
AT_ONCE = 16 << 10
"""Bytes that are split at a time where others wait: each two of them may be an event."""
TERMINAL_EVENTS = frozenset(
    {"message_stop", "response.completed", "response.failed", "response.incomplete", "response.cancelled", "error"}
)
_EVENT_NAME = re.compile(rb"(?:^|[\r\n])event:[ ]?([^\r\n]*)")


class EventTooLargeError(ValueError):
    """An event grew beyond `MAX_EVENT_BYTES` without a blank line."""


class EventSplitter:
    """Cuts a byte stream at its blank lines; joining what `feed` and `rest` return gives the input again."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Events that are complete now, each with its blank line."""
        since = 0
        if self._rest:
            since = max(len(self._rest) - 3, 0)  # before, there is no blank line that is not known
            data = self._rest + data
            self._rest = b""
        elif data.endswith(b"\n\n") and data.find(b"\n\n") == len(data) - 2 and b"\r" not in data:
            return [data]  # one event per read is the common case
        if since < AT_ONCE and b"\r" not in data:  # 3 times as fast
            *whole, self._rest = data.split(b"\n\n")
            if len(self._rest) > MAX_EVENT_BYTES:
                raise EventTooLargeError(f"an event has more than {MAX_EVENT_BYTES} bytes")
            return [event + b"\n\n" for event in whole]
        events: list[bytes] = []
        start = 0
        for blank in BLANK_LINE.finditer(data, since):
            end = blank.end()
            if end == len(data) and data.endswith(b"\r"):
                break  # the line feed of this carriage return may still be on its way
            events.append(data[start:end])
            start = end
        self._rest = data[start:]
        if len(self._rest) > MAX_EVENT_BYTES:
            raise EventTooLargeError(f"an event has more than {MAX_EVENT_BYTES} bytes")
        return events

    @property
    def is_clear(self) -> bool:
        """True if nothing is held back."""
        return not self._rest

    def rest(self) -> bytes:
        """What came after the last complete event; empty afterwards."""
        rest, self._rest = self._rest, b""
        return rest


def event_chunk(raw: bytes) -> Chunk:
    """Wrap one event, reading no more of it than its name and whether it ends the answer."""
    name = None
    if b"event:" in raw and (match := _EVENT_NAME.search(raw)):
        name = match[1].decode("utf-8", "replace")
    is_last = name in TERMINAL_EVENTS if name else is_done(raw)
    return Chunk(raw, event=name, is_last=is_last)


def is_done(raw: bytes) -> bool:
    """True for the `[DONE]` that ends chat and completion streams."""
    return raw.strip() in (b"data: [DONE]", b"data:[DONE]")


async def split_events(source: ByteSource) -> AsyncIterator[Chunk]:
    """The events of a stream; what is left without a blank line at its end is the last one."""
    splitter = EventSplitter()
    async for data in source:
        for at in range(0, len(data), AT_ONCE):
            for raw in splitter.feed(data[at : at + AT_ONCE]):
                yield event_chunk(raw)
    if rest := splitter.rest():
        yield event_chunk(rest)
