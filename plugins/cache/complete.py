"""Whether an answer is whole, told from its chunks."""

from __future__ import annotations

from typing import Any

from predawn.plugins import Chunk
from predawn.proxy.exchange import RouteName


class Completeness:
    """Watches the chunks of one answer go by."""

    __slots__ = ("_failed", "_finished", "_last", "_open", "_route")

    def __init__(self, route: RouteName) -> None:
        self._route: RouteName = route
        self._open: set[Any] = set()
        """Choices that have begun and not finished."""
        self._finished = False
        self._last = False
        self._failed = False

    def saw(self, chunk: Chunk) -> None:
        self._last = self._last or chunk.is_last
        data = chunk.data
        if data is None:
            return
        if data.get("error") is not None or data.get("type") in ("error", "response.failed", "response.cancelled"):
            self._failed = True
        elif self._route in ("chat", "completions"):
            self._saw_choices(data.get("choices"))
        elif self._route == "embeddings":
            self._finished = bool(data.get("data"))
        elif self._route == "messages":
            delta = data.get("delta")
            stopped = data.get("stop_reason") or (isinstance(delta, dict) and delta.get("stop_reason"))
            self._finished = self._finished or bool(stopped)
        elif self._route == "responses":
            response = data.get("response", data)
            self._finished = isinstance(response, dict) and response.get("status") == "completed"

    def _saw_choices(self, choices: Any) -> None:
        for position, choice in enumerate(choices if isinstance(choices, list) else ()):
            if not isinstance(choice, dict):
                self._failed = True
                return
            index = repr(choice.get("index", position))
            if choice.get("finish_reason") is None:
                self._open.add(index)
            else:
                self._open.discard(index)
                self._finished = True

    @property
    def is_whole(self) -> bool:
        """True once the answer finished and its last chunk was seen, without an error anywhere."""
        return self._last and self._finished and not self._open and not self._failed
