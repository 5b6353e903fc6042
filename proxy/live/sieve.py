"""Chooses at most so many of a stream of unknown length per turn, evenly spread."""

from __future__ import annotations


class Sieve:
    """Lets every n-th through; n follows from how many came in the turn before."""

    __slots__ = ("_came", "_let_through", "_most", "_stride")

    def __init__(self, most: int) -> None:
        self._most = most
        self._stride = 1
        self._came = 0
        self._let_through = 0

    def passes(self) -> bool:
        """True if this one is chosen."""
        came = self._came
        self._came = came + 1
        if came % self._stride or self._let_through >= self._most:
            return False
        self._let_through += 1
        return True

    def turn(self) -> None:
        """Begin anew; expect as many as came until now."""
        self._stride = max(1, -(-self._came // self._most))
        self._came = self._let_through = 0
