"""Angles of the rotary position embedding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Llama3Scaling:
    """`rope_scaling` of type "llama3": wavelengths longer than the original context are stretched (Llama 3.1)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_positions: int


def frequencies(
    head_dim: int, theta: float, scaling: Llama3Scaling | None = None, factors: Sequence[float] = ()
) -> Tensor:
    """Radians per position of each rotary pair, `[head_dim / 2]` float32; `factors` divide them one by one."""
    plain: Tensor = 1.0 / (theta ** (torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim))
    if factors:
        return plain / torch.tensor(factors, dtype=torch.float32)
    if scaling is None:
        return plain
    turns = scaling.original_positions * plain / (2 * math.pi)
    span = scaling.high_freq_factor - scaling.low_freq_factor
    # Between the two bounds the stretched and the plain frequency are mixed.
    share = ((turns - scaling.low_freq_factor) / span).clamp(0, 1)
    return plain * (share + (1 - share) / scaling.factor)


def tables(inverse: Tensor, positions: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each `[positions, head_dim / 2]` float32."""
    angles = torch.arange(positions, dtype=torch.float32)[:, None] * inverse[None]
    return angles.cos(), angles.sin()


class HalfSplit:
    """Rotates pairs that lie half a head apart, the order of published checkpoints and of the GPU kernels."""

    def __init__(self, inverse: Tensor, positions: int, device: torch.device) -> None:
        cos, sin = tables(inverse, positions)
        self.cos, self.sin = cos.to(device), sin.to(device)

    def at(self, positions: Tensor) -> Tensor:
        """What `rotate` needs for rows at these positions."""
        return torch.stack([self.cos[positions], self.sin[positions]])

    def rotate(self, heads: Tensor, turns: Tensor) -> Tensor:
        """`[rows, heads, head_dim]` float32, turned to their rows' positions."""
        cos, sin = turns[:, :, None]
        first, second = heads.chunk(2, -1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class Interleaved:
    """Rotates neighbours as complex numbers: one operation instead of four, which is what decoding on a CPU is made of.

    Queries and keys agree on any order of their elements, so the rows of both projections are reordered at load.
    """

    def __init__(self, inverse: Tensor, positions: int) -> None:
        self._turns = torch.complex(*tables(inverse, positions))

    def at(self, positions: Tensor) -> Tensor:
        return self._turns[positions]

    def rotate(self, heads: Tensor, turns: Tensor) -> Tensor:
        turned = heads.clone()
        self.turn(turned, turns)
        return turned

    @staticmethod
    def turn(heads: Tensor, turns: Tensor) -> None:
        """Like `rotate`, in place."""
        torch.view_as_complex(heads.unflatten(-1, (-1, 2))).mul_(turns[:, None])

    @staticmethod
    def reorder(rows: Tensor, head_dim: int) -> Tensor:
        """Rows of a projection to whole heads, `[heads * head_dim, in]`, from half-split order into this one."""
        halves = rows.view(-1, 2, head_dim // 2, rows.shape[-1])
        return halves.transpose(1, 2).reshape(rows.shape)

    @staticmethod
    def restore(rows: Tensor, head_dim: int) -> Tensor:
        """The inverse of `reorder`."""
        pairs = rows.view(-1, head_dim // 2, 2, rows.shape[-1])
        return pairs.transpose(1, 2).reshape(rows.shape)
