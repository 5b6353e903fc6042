"""What an answer says: the texts of its chunks put together, lane by lane."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from predawn.proxy.exchange import RouteName
from predawn.proxy.wire.text import Lane, texts


class Transcript:
    """Collects at most `limit` characters; `complete` is false once some were left out."""

    __slots__ = ("_lanes", "_limit", "_room", "_route", "complete")

    def __init__(self, route: RouteName, limit: int | None = None) -> None:
        self._route: RouteName = route
        self._limit = limit
        self._room = limit if limit is not None else 0
        self._lanes: dict[Lane, list[str]] = {}
        self.complete = True

    def read(self, data: Mapping[str, Any]) -> None:
        """Take in one chunk."""
        for span in texts(data, self._route):
            pieces = self._lanes.setdefault(span.lane, [])
            if span.whole:
                self._room += sum(map(len, pieces))
                pieces.clear()
            pieces.append(self._fitting(span.text))

    def _fitting(self, text: str) -> str:
        if self._limit is None:
            return text
        if len(text) > self._room:
            self.complete = False
            text = text[: self._room]
        self._room -= len(text)
        return text

    @property
    def lanes(self) -> list[dict[str, Any]]:
        """Each lane with its text, in the order in which they began."""
        return [
            {"group": lane.group, "kind": lane.kind, "part": lane.part, "text": "".join(pieces)}
            for lane, pieces in self._lanes.items()
        ]
