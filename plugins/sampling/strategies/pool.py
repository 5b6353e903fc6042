"""The samples of one request: started, running, ended; and what a strategy may still draw."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from predawn.plugins.sampling.strategies.protocol import Action, Cancel, Sample, Start


class Pool:
    """Keeps count. Samples are numbered in the order in which they were started, as the driver does it."""

    __slots__ = ("_finished", "failed", "limit", "running", "started")

    def __init__(self, limit: int) -> None:
        self.limit = max(1, limit)
        self.started = 0
        self.running: set[int] = set()
        self.failed: set[int] = set()
        self._finished: dict[int, Sample] = {}

    @property
    def left(self) -> int:
        """Samples that may still be started."""
        return self.limit - self.started

    @property
    def undecided(self) -> int:
        """Samples whose answer is not known yet, running ones included."""
        return self.left + len(self.running)

    @property
    def finished(self) -> list[Sample]:
        """Those that ended with an answer of any kind, by number."""
        return [self._finished[index] for index in sorted(self._finished)]

    @property
    def complete(self) -> list[Sample]:
        """Those that ended by themselves: neither cut off nor withheld."""
        return [sample for sample in self.finished if sample.complete]

    @property
    def is_idle(self) -> bool:
        return not self.running

    def start(self, count: int, seeing: tuple[int, ...] = ()) -> Iterator[Action]:
        """Start so many more, as far as the limit goes."""
        count = min(count, self.left)
        if count > 0:
            self.running.update(range(self.started, self.started + count))
            self.started += count
            yield Start(count, seeing)

    def close(self) -> None:
        """Start no more."""
        self.limit = self.started

    def cancel(self, indices: Iterable[int]) -> Iterator[Action]:
        """Give up samples that still run; they count as failed."""
        for index in sorted(indices):
            if index in self.running:
                self.running.discard(index)
                self.failed.add(index)
                yield Cancel(index)

    def ended(self, sample: Sample) -> bool:
        """Note a finished sample; False if it was not running, and is not to be counted."""
        if sample.index not in self.running:
            return False
        self.running.discard(sample.index)
        self._finished[sample.index] = sample
        return True

    def lost(self, index: int) -> bool:
        """Note a failed sample; False if it was not running."""
        if index not in self.running:
            return False
        self.running.discard(index)
        self.failed.add(index)
        return True

    def __repr__(self) -> str:
        return f"<Pool {len(self._finished)} of {self.limit} finished, {len(self.running)} running>"
