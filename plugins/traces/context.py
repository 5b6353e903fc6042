"""Whose trace an exchange belongs to, and what upstreams are told of it: W3C Trace Context, level 1.

This is all that happens while somebody waits: a header read, two random numbers, and a header written for each call.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from random import getrandbits
from typing import TYPE_CHECKING, NamedTuple

from multidict import CIMultiDict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from predawn.plugins import Call

SAMPLED = 1
LONGEST_STATE = 512
"""Characters of `tracestate` that are kept on spans; it travels on whole."""
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class Parent(NamedTuple):
    """What a `traceparent` says."""

    trace: int
    span: int
    flags: int
    state: str = ""


def parent_of(headers: Mapping[str, str]) -> Parent | None:
    """The client's span, or `None` if none is well formed: then its `tracestate` means nothing, either."""
    told = headers.get("traceparent")
    if told is None:
        return None
    match = _PARENT.fullmatch(told.strip())
    if match is None or _is_ambiguous(headers):
        return None
    version, trace, span, flags, more = match.groups()
    parent = Parent(int(trace, 16), int(span, 16), int(flags, 16))
    if version == "ff" or (version == "00" and more) or not parent.trace or not parent.span:
        return None
    state = ",".join(headers.getall("tracestate", [])) if isinstance(headers, CIMultiDict) else ""
    return parent._replace(state=state)


def _is_ambiguous(headers: Mapping[str, str]) -> bool:
    return isinstance(headers, CIMultiDict) and len(headers.getall("traceparent")) > 1


class Trace:
    """The trace of one exchange; `exchange.trace` of it and of those made for it."""

    __slots__ = ("_head", "_tail", "calls", "is_kept", "linked", "parent", "root", "state", "trace")

    def __init__(self, trace: int, parent: Parent | None, linked: Parent | None, *, is_kept: bool) -> None:
        self.trace = trace
        self.parent = parent
        """The client's span, if the trace is the client's."""
        self.linked = linked
        """The client's span, if the trace is our own."""
        self.root = _number(64)
        self.is_kept = is_kept
        self.state = parent.state if parent is not None else ""
        self.calls: dict[int, tuple[Call, int]] = {}
        """The spans of calls that were sent with a `traceparent`, by the identity of the call."""
        self._head = f"00-{trace:032x}-"
        self._tail = "-01" if is_kept else "-00"

    def onward(self, call: Call, headers: Mapping[str, str]) -> Mapping[str, str]:
        """The headers of one call to an upstream, whose parent is the call's own span."""
        span = _number(64)
        if self.is_kept:
            self.calls[id(call)] = (call, span)
        onward = CIMultiDict(headers)
        onward["traceparent"] = f"{self._head}{span:016x}{self._tail}"
        if self.parent is None:
            onward.popall("tracestate", None)
        return onward

    def span_of(self, call: Call) -> int:
        """The call's span; a new one for a call that was sent without."""
        found = self.calls.get(id(call))
        return found[1] if found is not None else _number(64)


class Context(NamedTuple):
    """The trace of all that was thought about a context, and the span in it that requests link to.

    Both follow from the context's name, so that a request finds the thoughts of other days and other processes.
    """

    trace: int
    span: int

    @classmethod
    def of(cls, tenant: str, name: str) -> Context:
        digest = blake2b(
            f"{tenant}\0{name}".encode(errors="replace"), digest_size=24, person=b"predawn context"
        ).digest()
        return cls(int.from_bytes(digest[:16], "big"), int.from_bytes(digest[16:], "big"))


def new_trace_id() -> int:
    return _number(128)


def new_span_id() -> int:
    return _number(64)


def _number(bits: int) -> int:
    return getrandbits(bits) or 1  # 0 is no id
