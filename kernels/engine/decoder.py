"""What the engine asks of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias

from torch import Tensor

from predawn.kernels.engine.config import ModelConfig
from predawn.kernels.engine.kv import KV

Between: TypeAlias = Callable[[Tensor, int], None]
"""Changes hidden states `[rows, dim]` in place after a pass, whose KV layer it is told, unless that ends its block."""


class DecoderModel(Protocol):
    """A decoder over paged keys and values; `model.Model` is one.

    Two promises make every policy of the engine invisible in its answers. A row of `decode` has the same bits whatever
    else is in the call, other rows of the same sequence included, for the keys and values of all rows are written
    before any row attends. And `prefill` of the same tokens from the same start, over the same keys and values, has the
    same bits each time. Nothing is promised between `prefill` and `decode`, nor between prefills cut at different
    places.
    """

    @property
    def config(self) -> ModelConfig:
        """Of this the engine reads `vocab`, `max_positions` and `shape.repeat`."""
        ...

    def new_kv(self, n_pages: int) -> KV:
        """Room for so many pages."""
        ...

    def prefill(
        self,
        tokens: Tensor,
        start: int,
        pages: Tensor,
        kv: KV,
        *,
        repeat: int | None = None,
        want: Literal["last", "all"] = "last",
    ) -> Tensor:
        """Logits `[1 or T, vocab]` fp32 after `tokens` [T] int64 from `start` on; `pages` [n] int32 are theirs."""
        ...

    def decode(
        self,
        tokens: Tensor,
        positions: Tensor,
        pages: Tensor,
        kv: KV,
        *,
        repeat: int | None = None,
        between: Between | None = None,
    ) -> Tensor:
        """Logits `[rows, vocab]` fp32 after one token per row, at `positions` [rows] int32.

        `pages` [rows, n] int32 may be padded with any page. `between` is given in experiments only (`width.py`).
        """
        ...
