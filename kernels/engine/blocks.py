"""The blocks of a model as what they compute, and the parts of a pass that prefill and decode share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from predawn.kernels.engine.rope import Interleaved
from predawn.kernels.engine.rows import MAX_ROWS, Product
from predawn.kernels.shape import BlockShape, BlockWeights

_SERIAL = 32_768
"""Elements from which torch divides an elementwise operation among threads."""


class Rotation(Protocol):
    """A rotary embedding over heads in some order of their elements."""

    def at(self, positions: Tensor) -> Tensor:
        """What `rotate` needs for rows at these positions."""
        ...

    def rotate(self, heads: Tensor, turns: Tensor) -> Tensor:
        """`[rows, heads, head_dim]` float32, turned to their rows' positions."""
        ...


@dataclass(frozen=True, slots=True)
class Block:
    """One stored block."""

    qkv: Product
    o: Product
    gate_up: Product
    """To gates and ups side by side, `[rows, 2 * ffn]`."""
    down: Product
    norm1: Tensor
    """`[dim]`, a `scaled_gain`"""
    norm2: Tensor
    """`[dim]`, a `scaled_gain`"""


def prepared(
    weights: BlockWeights, shape: BlockShape, prepare: Callable[[Tensor], Product], *, interleave: bool
) -> Iterator[Block]:
    """The blocks with their products made by `prepare`; `interleave` reorders queries and keys for `Interleaved`."""
    turned = (shape.heads + shape.kv_heads) * shape.head_dim
    for index in range(shape.layers):
        qkv = weights.qkv[index]
        if interleave:
            qkv = torch.cat([Interleaved.reorder(qkv[:turned], shape.head_dim), qkv[turned:]])
        yield Block(
            prepare(qkv),
            prepare(weights.o[index]),
            prepare(weights.gate_up[index].flatten(0, 1)),
            prepare(weights.down[index]),
            scaled_gain(weights.norm1[index]),
            scaled_gain(weights.norm2[index]),
        )


def widened(x: Tensor, eps: float) -> Tensor:
    """Float32 rows `[rows, dim]` with one column more, which `normalised` needs."""
    return functional.pad(x, (0, 1), value=math.sqrt(x.shape[-1] * eps))


def normalised(x: Tensor, gain: Tensor, dtype: torch.dtype) -> Tensor:
    """Root-mean-square norm of `widened` rows, for a product in `dtype`; `gain` is a `scaled_gain`.

    The last column is sqrt(dim * eps), so the length of a row is sqrt(dim) times what RMSNorm divides by. Three
    operations instead of seven: 5 µs for a row of 256 instead of 13, seventeen times a token.
    """
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    made: Tensor = (x[:, :-1] / length).mul_(gain)
    return made.to(dtype)


def scaled_gain(weight: Tensor) -> Tensor:
    """The weight of an RMSNorm as `normalised` takes it."""
    return weight.float() * math.sqrt(weight.shape[-1])


def feed_forward(block: Block, x: Tensor, dtype: torch.dtype) -> None:
    """Add the SwiGLU part to the residual, `widened` rows."""
    both = block.gate_up(normalised(x, block.norm2, dtype))
    for part in few_rows(both):
        gates, ups = part.chunk(2, -1)
        functional.silu(gates, inplace=True).mul_(ups)
    x[:, :-1].add_(block.down(both[:, : both.shape[-1] // 2]))


def few_rows(rows: Tensor) -> Sequence[Tensor]:
    """A batch `[rows, width]` in parts that torch does not divide among threads.

    It would divide them at places that depend on how many rows there are, and compute the last few elements of each
    share one by one, where an exponential or a rotation may differ in the last bit from the vectorised one.
    """
    if rows.numel() < _SERIAL or rows.shape[0] > MAX_ROWS:  # prompts need no promise
        return (rows,)
    parts: Sequence[Tensor] = rows.split(max(1, _SERIAL // rows.shape[-1]))
    return parts
