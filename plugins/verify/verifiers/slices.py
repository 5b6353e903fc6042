"""Long work in short slices: whoever has worked for some milliseconds lets the event loop go on."""

from __future__ import annotations

import asyncio
from time import perf_counter

SLICE_S = 0.004
"""A fifth of the 20 ms that no text may hold the loop up."""
LONGEST_PIECE = 500
LARGE = 4_000
"""A longer text is read piece by piece, line by line."""


class Breath:
    """Await it between two pieces of work; most of the time that costs a clock reading."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until = perf_counter() + SLICE_S

    async def __call__(self) -> None:
        if perf_counter() >= self._until:
            await asyncio.sleep(0)
            self._until = perf_counter() + SLICE_S


def pieces_of(text: str) -> list[str]:
    """The text itself, or where it is large its lines, many together; none is longer than `LARGE`."""
    if len(text) <= LARGE:
        return [text]
    pieces: list[str] = []
    at = 0
    while at < len(text):
        end = text.rfind("\n", at, at + LARGE) + 1
        if end <= at:
            end = text.rfind(" ", at, at + LARGE) + 1
        end = end if end > at else at + LARGE
        pieces.append(text[at:end])
        at = end
    return pieces
