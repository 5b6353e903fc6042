"""Random decode steps, and the same step by the reference and by the interpreted kernel."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from predawn.kernels.reference import decode_step, rope_tables
from predawn.kernels.shape import BlockShape, BlockWeights
from predawn.kernels.shared_block.execution import Execution, interpreter
from predawn.kernels.shared_block.launch import launch

PAGE = 16
EVEN = BlockShape(dim=128, heads=4, kv_heads=2, head_dim=32, ffn=192, layers=1, repeat=2)
ODD = BlockShape(dim=123, heads=5, kv_heads=1, head_dim=20, ffn=77, layers=2, repeat=2)
"""Nothing of it is a power of two, and no tile fits."""


@dataclass(frozen=True)
class Case:
    """The arguments of one decode step."""

    x: Tensor
    weights: BlockWeights
    shape: BlockShape
    k: Tensor
    v: Tensor
    pages: Tensor
    positions: Tensor
    cos: Tensor
    sin: Tensor

    def eager(self, compute: torch.dtype = torch.float64, repeat: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Result and both caches afterwards, by the reference; the oracle unless `compute` says otherwise."""
        k, v = self.k.clone(), self.v.clone()
        where = (k, v, self.pages, self.positions, self.cos, self.sin)
        return decode_step(self.x, self.weights, self.shape, *where, repeat=repeat, compute=compute), k, v

    def kernel(
        self, execution: Execution | None = None, *, grid: int | None = None, repeat: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Result and both caches afterwards, by the interpreted kernel."""
        k, v = self.k.clone(), self.v.clone()
        where = (k, v, self.pages, self.positions, self.cos, self.sin)
        repeat = repeat or self.shape.repeat
        out = launch(execution or interpreter(), self.x, self.weights, self.shape, *where, repeat=repeat, grid=grid)
        return out, k, v

    def row(self, b: int) -> Case:
        """The same step with one row of the batch only."""
        return replace(
            self, x=self.x[b : b + 1], pages=self.pages[b : b + 1], positions=self.positions[b : b + 1].clone()
        )


def random_weights(shape: BlockShape, dtype: torch.dtype = torch.float32, seed: int = 0) -> BlockWeights:
    """Weights that keep the residual stream's size about the same."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int, fan_in: int) -> Tensor:
        return torch.randn(*size, generator=generator) * fan_in**-0.5

    layers, dim, width, ffn = shape.layers, shape.dim, shape.attention_width, shape.ffn
    return BlockWeights(
        qkv=normal(layers, shape.qkv_rows, dim, fan_in=dim).to(dtype),
        o=normal(layers, dim, width, fan_in=width).to(dtype),
        gate_up=normal(layers, 2, ffn, dim, fan_in=dim).to(dtype),
        down=normal(layers, dim, ffn, fan_in=ffn).to(dtype),
        norm1=(1 + normal(layers, dim, fan_in=100)).to(dtype),
        norm2=(1 + normal(layers, dim, fan_in=100)).to(dtype),
    )


def random_case(
    shape: BlockShape, positions: list[int], dtype: torch.dtype = torch.float32, *, seed: int = 0, scale: float = 1.0
) -> Case:
    """One row per position, its pages scattered over a cache full of random numbers; `scale` is the residual's."""
    generator = torch.Generator().manual_seed(seed + 1)
    columns = max(positions) // PAGE + 2
    n_pages = len(positions) * columns + 3
    pages = torch.randperm(n_pages, generator=generator)[: len(positions) * columns].view(-1, columns).int()
    size = (shape.passes, n_pages, PAGE, shape.kv_heads, shape.head_dim)
    k, v = (torch.randn(size, generator=generator).to(dtype) for _ in range(2))
    x = torch.randn(len(positions), shape.dim, generator=generator) * scale
    cos, sin = rope_tables(shape, columns * PAGE)
    where = torch.tensor(positions, dtype=torch.int32)
    return Case(x, random_weights(shape, dtype, seed), shape, k, v, pages, where, cos, sin)


def each(weights: BlockWeights) -> list[Tensor]:
    """The tensors, in the order of the fields."""
    return [getattr(weights, field.name) for field in fields(weights)]


def error(got: Tensor, expected: Tensor) -> float:
    """Relative to the size of what was expected."""
    return ((got.double() - expected.double()).norm() / expected.double().norm()).item()


def identical(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> bool:
    """True if all tensors are the same to the bit."""
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
