"""The decode step as torch knows it: the custom op `predawn::shared_block_decode`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import torch
from torch import Tensor

from predawn.kernels import reference
from predawn.kernels.shape import BlockShape, BlockWeights
from predawn.kernels.shared_block.execution import choose
from predawn.kernels.shared_block.launch import launch
from predawn.kernels.shared_block.tiles import MAX_BATCH


def decode_step(  # noqa: PLR0917 - as the kernel takes them
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
) -> Tensor:
    """One token of each row through all blocks; returns the residual stream after the last, `[B, dim]` fp32.

    `x [B, dim]` are the tokens' embeddings, 1 ≤ B ≤ `MAX_BATCH`. `k_cache` and `v_cache [layers * R, n_pages, PAGE,
    kv_heads, head_dim]` are changed in place: each row's keys and values are written at `positions [B]` of its `pages
    [B, max_pages]` (both int32) before any row attends, so rows may be consecutive positions of one sequence. Columns
    of `pages` beyond a row's length are not read, nor are rows of its last page beyond its position. `cos` and `sin`
    are `[max_positions, head_dim / 2]` fp32. Weights and caches are fp32, fp16 or bf16.

    `repeat` runs fewer passes than the stored R, for the whole batch; pass r of block l keeps the KV index `l * R + r`.
    Raises ValueError for a `repeat` outside of 1…R, a batch that is too large, or tensors that do not fit the shape.
    """
    repeat = shape.repeat if repeat is None else repeat
    _check(x, weights, shape, {"k_cache": k_cache, "v_cache": v_cache}, pages, positions, repeat=repeat)
    out: Tensor = _decode(
        x.float(),
        weights.qkv,
        weights.o,
        weights.gate_up,
        weights.down,
        weights.norm1,
        weights.norm2,
        k_cache,
        v_cache,
        pages,
        positions,
        cos,
        sin,
        shape.heads,
        shape.repeat,
        repeat,
        shape.eps,
    )
    return out


def _check(  # noqa: PLR0917 - everything that can be wrong
    x: Tensor,
    weights: BlockWeights,
    shape: BlockShape,
    caches: Mapping[str, Tensor],
    pages: Tensor,
    positions: Tensor,
    *,
    repeat: int,
) -> None:
    batch = x.shape[0]
    if not 1 <= repeat <= shape.repeat:
        raise ValueError(f"repeat: 1 to {shape.repeat} passes expected, as the model has them, got {repeat}")
    if not 1 <= batch <= MAX_BATCH or x.shape[1:] != (shape.dim,):
        raise ValueError(f"x: 1 to {MAX_BATCH} rows of {shape.dim} expected, got {tuple(x.shape)}")
    if positions.shape != (batch,) or positions.dtype != torch.int32:
        raise ValueError(f"positions: {batch} int32 expected, got {positions.dtype} {tuple(positions.shape)}")
    if pages.shape[:-1] != (batch,) or pages.dtype != torch.int32:
        raise ValueError(f"pages: {batch} rows of int32 expected, got {pages.dtype} {tuple(pages.shape)}")
    for field in fields(weights):
        if not getattr(weights, field.name).is_contiguous():
            raise ValueError(f"{field.name}: a contiguous stack expected")
    row = (shape.kv_heads, shape.head_dim)
    for name, cache in caches.items():
        if cache.shape[:1] != (shape.passes,) or cache.shape[3:] != row or not cache[0].is_contiguous():
            raise ValueError(f"{name}: contiguous [{shape.passes}, pages, page, *{row}] expected, got {cache.shape}")


@torch.library.custom_op("predawn::shared_block_decode", mutates_args=("k_cache", "v_cache"), device_types="cpu")
def _decode(  # noqa: PLR0917 - an op takes tensors and numbers, no objects
    x: Tensor,
    qkv: Tensor,
    o: Tensor,
    gate_up: Tensor,
    down: Tensor,
    norm1: Tensor,
    norm2: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    pages: Tensor,
    positions: Tensor,
    cos: Tensor,
    sin: Tensor,
    heads: int,
    stored_repeat: int,
    repeat: int,
    eps: float,
) -> Tensor:
    weights = BlockWeights(qkv, o, gate_up, down, norm1, norm2)
    shape = _shape(weights, k_cache, heads, stored_repeat, eps)
    step: Tensor = reference.decode_step(
        x, weights, shape, k_cache, v_cache, pages, positions, cos, sin, repeat=repeat, compute=qkv.dtype
    )
    return step.float()


@_decode.register_kernel("cuda")
def _decode_cuda(  # noqa: PLR0917 - the op's signature
    x: Tensor,
    qkv: Tensor,
    o: Tensor,
    gate_up: Tensor,
    down: Tensor,
    norm1: Tensor,
    norm2: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    pages: Tensor,
    positions: Tensor,
    cos: Tensor,
    sin: Tensor,
    heads: int,
    stored_repeat: int,
    repeat: int,
    eps: float,
) -> Tensor:
    weights = BlockWeights(qkv, o, gate_up, down, norm1, norm2)
    shape = _shape(weights, k_cache, heads, stored_repeat, eps)
    where = (k_cache, v_cache, pages, positions, cos, sin)
    execution = choose(x.device)
    if execution.mode == "eager":
        return reference.decode_step(x, weights, shape, *where, repeat=repeat, compute=qkv.dtype).float()
    with torch.cuda.device(x.device):  # Triton launches on the current one
        return launch(execution, x, weights, shape, *where, repeat=repeat)


@_decode.register_fake
def _decode_fake(x: Tensor, *_: object) -> Tensor:
    return torch.empty_like(x)


def _shape(weights: BlockWeights, k_cache: Tensor, heads: int, stored_repeat: int, eps: float) -> BlockShape:
    """The shape that the tensors have; an op's arguments are tensors and numbers only."""
    layers, dim, ffn = weights.down.shape
    return BlockShape(dim, heads, k_cache.shape[3], k_cache.shape[4], ffn, layers, stored_repeat, eps)
