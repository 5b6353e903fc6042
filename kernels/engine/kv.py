"""Keys and values of all sequences, in pages."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from predawn.kernels.shape import BlockShape

PAGE = 16
"""Positions per page."""


@dataclass(frozen=True, slots=True)
class KV:
    """A pool of pages for every pass of every block; what sequences share a page is the scheduler's business.

    A pass has a layer of its own, `block * repeat + pass`: keys of the second pass differ from those of the first, and
    one layer for both is wrong as soon as anything is kept (tests/kernels/engine/test_model.py shows it).
    """

    k: Tensor
    """`[passes, pages, PAGE, kv_heads, head_dim]`; how elements are ordered within a head is the model's own affair."""
    v: Tensor
    """As `k`."""
    rows: tuple[Tensor, ...] = ()
    """On the CPU, for each pass `[pages * PAGE, 2 * kv_heads * head_dim]`: the same memory, where keys and values of a
    position lie side by side, so that one operation writes or gathers both. Elsewhere `k` and `v` are contiguous, as
    GPU kernels want them, and this is empty."""

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return self.k.shape[1]

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Keep `[rows, kv_heads, head_dim]` keys and values of a pass at `slots` `[rows]`: page * PAGE + offset."""
        self.k[layer].flatten(0, 1).index_copy_(0, slots, keys.to(self.k.dtype))
        self.v[layer].flatten(0, 1).index_copy_(0, slots, values.to(self.v.dtype))

    def read(self, layer: int, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, each `[kv_heads, rows, head_dim]`, of a pass at `slots` `[rows]`."""
        keys, values = (kept[layer].flatten(0, 1).index_select(0, slots) for kept in (self.k, self.v))
        return keys.transpose(0, 1), values.transpose(0, 1)


def side_by_side(shape: BlockShape, pages: int, dtype: torch.dtype) -> KV:
    """Pages on the CPU, with `rows`."""
    both = torch.zeros(shape.passes, pages, PAGE, 2, shape.kv_heads, shape.head_dim, dtype=dtype)
    return KV(both[:, :, :, 0], both[:, :, :, 1], tuple(both.view(shape.passes, pages * PAGE, -1)))


def separate(shape: BlockShape, pages: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> KV:
    """Pages with keys and values apart, on any device."""
    size = (shape.passes, pages, PAGE, shape.kv_heads, shape.head_dim)
    return KV(torch.zeros(size, dtype=dtype, device=device), torch.zeros(size, dtype=dtype, device=device))
