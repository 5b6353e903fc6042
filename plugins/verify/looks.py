"""When a verifier looked at an answer, summed up as it goes on: a hostile one may have a quarter of a million steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predawn.plugins.verify.result import Looked

if TYPE_CHECKING:
    from predawn.plugins.verify.trace import Check


class Looks:
    """The looks of one verifier."""

    __slots__ = ("_after", "_before_s", "_count", "_first_s", "_unsure", "_violations", "last_s", "whole_s")

    def __init__(self) -> None:
        self.whole_s = 0.0
        """How long they took together."""
        self.last_s = 0.0
        """When the last of them ended."""
        self._first_s = float("inf")
        self._count = self._violations = self._unsure = 0
        self._before_s = 0.0
        """How long those took that were over while text still came."""
        self._after: list[tuple[float, float]] = []
        """The others."""

    def add(self, check: Check, generated_at: float) -> None:
        """One is over; `generated_at` is when the last text had come, 0 while it comes."""
        assert check.verdict is not None
        self._count += 1
        self._violations += check.verdict.outcome == "violation"
        self._unsure += check.verdict.outcome == "unsure"
        took_s = check.ended_s - check.began_s
        self.whole_s += took_s
        self._first_s = min(self._first_s, check.began_s)
        self.last_s = max(self.last_s, check.ended_s)
        if generated_at:
            self._after.append((check.began_s, check.ended_s))
        else:
            self._before_s += took_s

    def hidden(self, generated_at: float) -> float:
        """How long they took while text came."""
        return self._before_s + sum(max(min(end, generated_at) - begin, 0.0) for begin, end in self._after)

    def told(self, verifier: str) -> Looked:
        """All of them in brief."""
        word = "violation" if self._violations else "unsure" if self._unsure else "pass"
        return Looked(verifier, self._first_s, self.last_s, self.whole_s, self._count, self._violations, word)
