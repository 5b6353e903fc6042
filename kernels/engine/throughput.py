"""How fast tokens have gone lately, and so how long the waiting ones will take."""

from __future__ import annotations

from collections.abc import Iterable

from predawn.kernels.engine.sequence import Sequence

_MEMORY = 0.98
"""Weight that a measurement keeps when the next one comes: the last 50 or so count."""
SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.5, 120.0


class Rate:
    """Amount per unit, over the latest measurements."""

    def __init__(self) -> None:
        self._amount = 0.0
        self._units = 0.0

    def add(self, amount: float, units: float) -> None:
        """One measurement."""
        self._amount = self._amount * _MEMORY + amount
        self._units = self._units * _MEMORY + units

    @property
    def value(self) -> float | None:
        """None before anything was measured."""
        return self._amount / self._units if self._units else None


class Throughput:
    """Measured speed of prefill and decode, and the length of answers."""

    def __init__(self) -> None:
        self.prefill_s = Rate()
        """Seconds per prompt token."""
        self.decode_s = Rate()
        """Seconds per generated token, of all sequences together."""
        self.answer = Rate()
        """Tokens per finished choice."""

    def wait_s(self, sequences: Iterable[Sequence]) -> float:
        """Seconds until these waiting sequences will have been worked off, at the measured speed and with answers of
        the usual length.
        """
        prefill_s, decode_s, answer = self.prefill_s.value or 0.0, self.decode_s.value or 0.0, self.answer.value
        total = 0.0
        prompts: set[int] = set()
        for sequence in sequences:
            expected = sequence.remaining if answer is None else min(sequence.remaining, answer)
            total += expected * decode_s
            if sequence.request.number not in prompts:  # choices share their prompt
                prompts.add(sequence.request.number)
                total += len(sequence.request.prompt) * prefill_s
        return min(max(total, SHORTEST_WAIT_S), LONGEST_WAIT_S)
