"""When a verifier looked at an answer, summed up as it goes on: a hostile one may have a quarter of a million steps."""

from __future__ import annotations

from predawn.plugins.verify.result import MOST_SPANS


class Looks:
    """The looks of one verifier."""

    __slots__ = ("_after", "_before_s", "first", "last_s", "whole_s")

    def __init__(self) -> None:
        self.first: list[tuple[float, float]] = []
        """From and to, of the first `MOST_SPANS`."""
        self.whole_s = 0.0
        """How long they took together."""
        self.last_s = 0.0
        """When the last of them ended."""
        self._before_s = 0.0
        """How long those took that were over while text still came."""
        self._after: list[tuple[float, float]] = []
        """The others."""

    def add(self, began_s: float, ended_s: float, generated_at: float) -> None:
        """One is over; `generated_at` is when the last text had come, 0 while it comes."""
        if len(self.first) < MOST_SPANS:
            self.first.append((began_s, ended_s))
        took_s = ended_s - began_s
        self.whole_s += took_s
        self.last_s = max(self.last_s, ended_s)
        if generated_at:
            self._after.append((began_s, ended_s))
        else:
            self._before_s += took_s

    def hidden(self, generated_at: float) -> float:
        """How long they took while text came."""
        return self._before_s + sum(max(min(end, generated_at) - begin, 0.0) for begin, end in self._after)
