"""Spans as OTLP's protobuf messages, written by hand: 3 µs a span, where OpenTelemetry's SDK takes 25.

Only what we send is here. The field numbers are those of opentelemetry-proto 1.x (trace.proto, common.proto), which
promises never to change them; the tests read what is written with the generated classes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Value: TypeAlias = "str | bool | int | float | tuple[str, ...]"
Kind: TypeAlias = Literal["internal", "server", "client"]
KINDS: Final[dict[Kind, int]] = {"internal": 1, "server": 2, "client": 3}
SHORT: Final = 100
"""Bytes of a text whose messages have sizes of one byte."""
_double = struct.Struct("<d").pack
_times = struct.Struct("<BBQBQ").pack
"""Kind, beginning and end, each but the first after its tag."""
_MOST: Final = (1 << 63) - 1


@dataclass(slots=True)
class Link:
    """Another span that has to do with this one."""

    trace: int
    span: int
    attributes: Mapping[str, Value]


@dataclass(slots=True)
class Span:
    """Something that took time; times are seconds since the epoch."""

    trace: int
    span: int
    parent: int
    """0 for none."""
    name: str
    kind: Kind
    began_at: float
    ended_at: float
    attributes: dict[str, Value]
    links: list[Link] = field(default_factory=list[Link])
    is_error: bool = False
    state: str = ""
    constant: bytes = b""
    """More attributes, as `attributes` wrote them."""


def encoded(span: Span) -> bytes:
    """A span as a member of `ScopeSpans`."""
    head = b"\x0a\x10%b\x12\x08%b" % (span.trace.to_bytes(16, "big"), span.span.to_bytes(8, "big"))
    if span.state:
        head += _text(0x1A, span.state)
    if span.parent:
        head += b"\x22\x08" + span.parent.to_bytes(8, "big")
    times = _times(KINDS[span.kind], 0x39, _nanoseconds(span.began_at), 0x41, _nanoseconds(span.ended_at))
    tail = b"\x7a\x02\x18\x02" if span.is_error else b""
    # flags: sampled, and whether the parent is somebody else's, which it is of a server's span
    tail += b"\x85\x01\x01\x03\x00\x00" if span.kind == "server" and span.parent else b"\x85\x01\x01\x01\x00\x00"
    links = b"".join([_sized(0x6A, _link(link)) for link in span.links]) if span.links else b""
    told = span.constant + attributes(span.attributes) if span.attributes else span.constant
    return _sized(0x12, b"".join((head, _text(0x2A, span.name), b"\x30", times, told, links, tail)))


def attributes(told: Mapping[str, Value]) -> bytes:
    """Attributes of a span; keep what comes again and again, and give it to spans as `constant`."""
    return b"".join([_sized(0x4A, _pair(key, value)) for key, value in told.items()])


def request(resource: Mapping[str, Value], version: str, spans: Iterable[bytes]) -> bytes:
    """An `ExportTraceServiceRequest` with these spans."""
    who = b"".join([_sized(0x0A, _pair(key, value)) for key, value in resource.items()])
    scope = _text(0x0A, "predawn") + _text(0x12, version)
    return _sized(0x0A, _sized(0x0A, who) + _sized(0x12, _sized(0x0A, scope) + b"".join(spans)))


def rejected(response: bytes) -> int:
    """Spans that a receiver did not take, by its `ExportTraceServiceResponse`; 0 if that is not to be understood."""
    partial = _fields(response).get(1)
    if not isinstance(partial, bytes):
        return 0
    count = _fields(partial).get(1)
    return count if isinstance(count, int) else 0


def _fields(message: bytes) -> dict[int, int | bytes]:
    """The varints and texts of a small message."""
    found: dict[int, int | bytes] = {}
    at = 0
    while at < len(message):
        tag, at = _read(message, at)
        value, at = _read(message, at)
        if tag & 7 == 0:
            found[tag >> 3] = value
        elif tag & 7 == 2:
            found[tag >> 3] = message[at : at + value]
            at += value
        else:
            break
    return found


def _read(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 64:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            break
        shift += 7
    return value, at


def _link(link: Link) -> bytes:
    ids = b"\x0a\x10" + link.trace.to_bytes(16, "big") + b"\x12\x08" + link.span.to_bytes(8, "big")
    return ids + b"".join([_sized(0x22, _pair(key, value)) for key, value in link.attributes.items()])


def _pair(key: str, value: Value) -> bytes:
    """A `KeyValue`; the usual ones in one step."""
    name = _key(key)
    if isinstance(value, str):
        text = value.encode(errors="replace")
        if (size := len(text)) < SHORT:
            return b"%b\x12%c\x0a%c%b" % (name, size + 2, size, text)
        return name + _sized(0x12, _sized(0x0A, text))
    if isinstance(value, bool):
        return name + (b"\x12\x02\x10\x01" if value else b"\x12\x02\x10\x00")
    if isinstance(value, int):
        number = _varint(min(max(value, 0), _MOST))
        return b"%b\x12%c\x18%b" % (name, len(number) + 1, number)
    if isinstance(value, float):
        return b"%b\x12\x09\x21%b" % (name, _double(value))
    return name + _sized(0x12, _sized(0x2A, b"".join([_sized(0x0A, _text(0x0A, item)) for item in value])))


@lru_cache(maxsize=256)
def _key(key: str) -> bytes:
    return _text(0x0A, key)


def _text(tag: int, text: str) -> bytes:
    return _sized(tag, text.encode(errors="replace"))


def _sized(tag: int, data: bytes) -> bytes:
    size = len(data)
    if size < 0x80:
        return b"%c%c%b" % (tag, size, data)
    return bytes((tag,)) + _varint(size) + data


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _nanoseconds(at: float) -> int:
    return int(at * 1e9) & _MOST
