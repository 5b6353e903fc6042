"""The decode step in plain torch, on any device: the oracle of the kernels, and what runs where there is no GPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from predawn.kernels.shape import BlockShape, BlockWeights


def rope_tables(shape: BlockShape, positions: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Cosines and sines of the plain rotary embedding, each `[positions, head_dim / 2]` fp32."""
    pairs = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
    angles = torch.arange(positions, dtype=torch.float32)[:, None] * shape.rope_theta**-pairs
    return angles.cos().to(device), angles.sin().to(device)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`x` over its root mean square, in fp32 at least, times `weight`; in the type of `x`."""
    wide = _wide(x)
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype) * weight


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of `x [rows, heads, head_dim]`, pairs half a head apart; `cos`, `sin [rows, head_dim / 2]`."""
    first, second = _wide(x).chunk(2, -1)
    c, s = cos[:, None], sin[:, None]
    return torch.cat([first * c - second * s, second * c + first * s], -1).to(x.dtype)


def decode_step(  # noqa: PLR0917 - the order of `shared_block.decode_step`
    x: Tensor,
    weights: BlockWeights,
    shape: BlockShape,
    k_cache: Tensor,
    v_cache: Tensor,
    pages: Tensor,
    positions: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    repeat: int | None = None,
    compute: torch.dtype = torch.float32,
) -> Tensor:
    """One token of each row through all blocks, as `shared_block.decode_step` says; any batch size.

    Returns `[B, dim]` of type `compute`, the type that all arithmetic is rounded to. fp64 is the oracle. The weights'
    own type shows what ordinary eager code makes of the step; from it the tests derive how far off a kernel may be.
    """
    x = x.to(compute)
    step = _Step.at(shape, k_cache.shape[2], pages, positions, cos, sin)
    for layer in range(shape.layers):
        block = _layer(weights, layer, compute)
        for r in range(shape.repeat if repeat is None else repeat):
            index = layer * shape.repeat + r
            x = _pass(x, block, step, k_cache[index], v_cache[index])
    return x


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


@dataclass(frozen=True, slots=True)
class _Step:
    """What all passes of one step have in common."""

    shape: BlockShape
    pages: Tensor
    lengths: list[int]
    """keys of each row, its own included"""
    slot: tuple[Tensor, Tensor]
    """page and row of the page that each row's keys and values go to"""
    angles: tuple[Tensor, Tensor]
    """cosines and sines of each row's position"""

    @classmethod
    def at(cls, shape: BlockShape, page: int, pages: Tensor, positions: Tensor, *tables: Tensor) -> _Step:
        where = positions.long()
        slot = pages.gather(1, (where // page)[:, None])[:, 0].long(), where % page
        return cls(shape, pages, [n + 1 for n in positions.tolist()], slot, (tables[0][where], tables[1][where]))


def _layer(weights: BlockWeights, layer: int, compute: torch.dtype) -> BlockWeights:
    """One block's weights, without the stacking axis."""
    stacks = weights.qkv, weights.o, weights.gate_up, weights.down, weights.norm1, weights.norm2
    return BlockWeights(*(stack[layer].to(compute) for stack in stacks))


def _pass(x: Tensor, block: BlockWeights, step: _Step, keys: Tensor, values: Tensor) -> Tensor:
    """One pass over one block; writes every row's keys and values before any row attends."""
    shape = step.shape
    qkv = F.linear(rms_norm(x, block.norm1, shape.eps), block.qkv).unflatten(1, (-1, shape.head_dim))
    q, k, v = qkv.tensor_split((shape.heads, shape.heads + shape.kv_heads), 1)
    keys[step.slot] = rotate(k, *step.angles).to(keys.dtype)
    values[step.slot] = v.to(values.dtype)
    q = rotate(q, *step.angles)
    rows = zip(q, step.pages, step.lengths, strict=True)
    x = x + F.linear(torch.stack([_attend(q, keys, values, pages, n) for q, pages, n in rows]), block.o)
    h = rms_norm(x, block.norm2, shape.eps)
    gate, up = block.gate_up
    return x + F.linear(F.silu(F.linear(h, gate)) * F.linear(h, up), block.down)


def _attend(q: Tensor, keys: Tensor, values: Tensor, pages: Tensor, length: int) -> Tensor:
    """Attention of one token's `q [heads, head_dim]` over the first `length` tokens of its pages, heads flattened."""
    used = pages[: -(-length // keys.shape[1])].long()
    k, v = (cache[used].flatten(0, 1)[:length].to(q.dtype).transpose(0, 1) for cache in (keys, values))
    return F.scaled_dot_product_attention(q[:, None], k, v, enable_gqa=True).flatten()
