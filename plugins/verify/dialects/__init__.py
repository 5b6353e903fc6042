"""The APIs whose answers are verified, each with a reader and a writer.

A reader turns what an upstream sends into parts in the one shape that steps, flow and holding know: chat's. A writer
turns what may go out into what the client's API says. An event that is only waited for leaves as it came; what was cut,
corrected or gone on with by another call is said anew, with the numbers and ends that the API has for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from predawn.plugins import Chunk
    from predawn.plugins.verify.reading import Part
    from predawn.proxy.exchange import RouteName


class Reader(Protocol):
    """Reads the answer of one call."""

    def events(self, chunk: Chunk) -> list[Chunk]:
        """The chunk itself, or the events of a whole body. Raises `ValueError` for one that is no answer."""
        ...

    def read(self, event: Chunk) -> list[Part]:
        """What an event says, each to be read once and in order; empty of one that is no part of the answer."""
        ...


class Writer(Protocol):
    """Writes the answer that the client gets."""

    def write(self, chunk: Chunk) -> list[Chunk]:
        """What the client is sent in place of a part's chunk."""
        ...

    def end(self) -> list[Chunk]:
        """The end mark."""
        ...


def reader_of(route: RouteName) -> Reader:
    """A reader for one call."""
    if route == "messages":
        from predawn.plugins.verify.dialects.messages_reader import MessagesReader

        return MessagesReader()
    if route == "responses":
        from predawn.plugins.verify.dialects.responses_reader import ResponsesReader

        return ResponsesReader()
    from predawn.plugins.verify.dialects.plain import PlainReader

    return PlainReader(route)


def writer_of(route: RouteName) -> Writer:
    """A writer for one answer."""
    if route == "messages":
        from predawn.plugins.verify.dialects.messages_writer import MessagesWriter

        return MessagesWriter()
    if route == "responses":
        from predawn.plugins.verify.dialects.responses_writer import ResponsesWriter

        return ResponsesWriter()
    from predawn.plugins.verify.dialects.plain import PlainWriter

    return PlainWriter()
