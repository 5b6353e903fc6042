"""`single`: one answer, whatever it is; what everything else is compared with."""

from __future__ import annotations

from collections.abc import Iterator

from predawn.plugins.sampling.strategies.machine import Machine
from predawn.plugins.sampling.strategies.protocol import Action, Stop


class Single(Machine):
    name: str = "single"

    def begin(self) -> Iterator[Action]:
        yield from self.pool.start(1)

    def next(self) -> Iterator[Action]:
        yield Stop(self.pool.finished[0].index, "exhausted")
