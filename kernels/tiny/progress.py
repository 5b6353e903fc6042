"""How a training run is going: a bar to look at, and what the network can do so far."""

from __future__ import annotations

import sys
import time
from random import Random
from typing import TYPE_CHECKING, Protocol

import torch

from predawn.kernels.tiny import lessons, tokenizer, world
from predawn.kernels.tiny.batches import padded

if TYPE_CHECKING:
    from collections.abc import Callable

    from predawn.kernels.tiny.lessons import Curriculum, Piece
    from predawn.kernels.tiny.network import Network, Places

CHECK_SEED = "check"
"""Of the lessons that are looked at while learning; the evaluation has another."""
CHECKED = 64
"""Lessons of each kind per check."""


class Encoder(Protocol):
    """Lessons as tokens and their weights."""

    def encoded(self, pieces: list[Piece]) -> tuple[list[int], list[float]]: ...


class Learner(Protocol):
    """A run as it is looked at."""

    @property
    def lessons(self) -> Encoder: ...
    @property
    def network(self) -> Network: ...
    @property
    def places(self) -> Places: ...


class Bar:
    """A progress bar on the standard error: redrawn in place in a terminal, a line now and then elsewhere."""

    def __init__(self, total: int) -> None:
        self._total, self._started, self._first = total, time.monotonic(), -1
        self._terminal = sys.stderr.isatty()

    def draw(self, done: int, note: str) -> None:
        if self._first < 0:
            self._first = done - 1
        spent = time.monotonic() - self._started
        left_s = spent / (done - self._first) * (self._total - done)
        filled = 30 * done // self._total
        if self._terminal:
            bar = "█" * filled + "░" * (30 - filled)
            print(f"\r{bar} {done}/{self._total} · {note} · {left_s / 60:.0f} min left ", end="", file=sys.stderr)

    def note(self, text: str) -> None:
        print(f"\r{text}", file=sys.stderr, flush=True)


def check(run: Learner) -> dict[str, float]:
    """The share of unseen lessons in which every learnt token is the likeliest, by kind: what greedy writing gets."""
    plain = lessons.Curriculum(world.DEEPEST, 0.0)
    kinds: dict[str, Callable[[Random, Curriculum], list[Piece]]] = {
        "stepwise": lessons.stepwise,
        "notes": lessons.writing_notes,
        "noted": lessons.from_notes,
        "direct": lessons.direct,
        "drill": lessons.saying_again,
    }
    figures = {}
    for name, kind in kinds.items():
        random = Random(f"{CHECK_SEED}/{name}")
        rows = [run.lessons.encoded([lessons.Piece(tokenizer.BEGIN), *kind(random, plain)]) for _ in range(CHECKED)]
        rows.sort(key=lambda row: len(row[0]))
        whole, right, of = 0, 0.0, 0
        for start in range(0, CHECKED, 32):
            batch = padded(rows[start : start + 32])
            with torch.inference_mode():
                hits = run.network(batch.tokens, run.places, batch.learnt).argmax(-1) == batch.targets
            strong = batch.weights >= 1
            missed = batch.learnt[strong & ~hits] // batch.tokens.shape[1]
            whole += len(rows[start : start + 32]) - len(missed.unique())
            right += float(hits[strong].sum())
            of += int(strong.sum())
        figures[f"{name}_whole"] = round(whole / CHECKED, 3)
        figures[f"{name}_tokens"] = round(right / of, 4)
    return figures
