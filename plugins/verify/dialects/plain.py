"""Chat and completions: their chunks are the shape that everything else knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predawn.plugins import Chunk
from predawn.plugins.verify.reading import Part, as_stream, parts_of

if TYPE_CHECKING:
    from predawn.proxy.exchange import RouteName

DONE = b"data: [DONE]\n\n"


class PlainReader:
    """Takes choices apart."""

    __slots__ = ("_route",)

    def __init__(self, route: RouteName) -> None:
        self._route: RouteName = route

    def events(self, chunk: Chunk) -> list[Chunk]:
        """The chunk itself, or those of a whole body."""
        return as_stream(chunk, self._route)

    def read(self, event: Chunk) -> list[Part]:
        """What a chunk says of each choice."""
        return parts_of(event, self._route)


class PlainWriter:
    """Lets chunks go as they are."""

    __slots__ = ()

    def write(self, chunk: Chunk) -> list[Chunk]:
        """The chunk itself."""
        return [chunk]

    def end(self) -> list[Chunk]:
        """`[DONE]`."""
        return [Chunk(DONE, is_last=True)]
