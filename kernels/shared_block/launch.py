"""What a launch of the kernel takes: its arguments, its compile-time constants, its scratch memory, its grid.

Ahead-of-time compilation reads `signature`, `constants` and `options` too, so that what it inspects is what runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from predawn.kernels.shape import BlockShape, BlockWeights
from predawn.kernels.shared_block.tiles import MAX_BATCH, Tiles, power_of_two

if TYPE_CHECKING:
    from predawn.kernels.shared_block.execution import Execution

PHASES = range(5)
PERSISTENT = -1
"""`PHASE` of the launch that runs all phases."""

_FP32 = ("x", "x_mid", "partial", "weight", "cos", "sin")
_WEIGHTS = ("mixed", "hidden", "w_qkv", "w_o", "w_gate_up", "w_down", "norm1", "norm2")
_CACHE = ("q", "k_cache", "v_cache")


def signature(weights: str, cache: str) -> dict[str, str]:
    """Triton types of the kernel's arguments, for weights and KV cache of type "bf16", "fp16" or "fp32"."""
    types = dict.fromkeys(_FP32, "*fp32") | dict.fromkeys(_WEIGHTS, f"*{weights}") | dict.fromkeys(_CACHE, f"*{cache}")
    types |= dict.fromkeys(("counters", "pages", "positions"), "*i32")
    types |= dict.fromkeys(("pass_low", "pass_high", "repeat", "stored_repeat", "batch", "max_pages"), "i32")
    return types | {"kv_stride": "i64", "eps": "fp32", "scale": "fp32"}


ALIGNED = frozenset((*_FP32, *_WEIGHTS, *_CACHE, "counters", "pages", "positions", "kv_stride"))
"""Arguments that are multiples of 16 (bytes for pointers), as Triton finds out by itself when it launches."""


def constants(
    shape: BlockShape, tiles: Tiles, *, page: int, phase: int, prefetch: bool, interpreted: bool = False
) -> dict[str, int | bool]:
    """The kernel's compile-time constants. `page` is in tokens, `phase` one of `PHASES` or `PERSISTENT`."""
    return {
        "D": shape.dim,
        "HQ": shape.heads,
        "HKV": shape.kv_heads,
        "DH": shape.head_dim,
        "DP": max(16, power_of_two(shape.head_dim)),
        "FFN": shape.ffn,
        "PAGE": page,
        "BM": MAX_BATCH,
        "PT": tiles.pairs,
        "BN": tiles.outputs,
        "BI": tiles.hidden,
        "BK": tiles.depth,
        "BB": tiles.depth_back,
        "BG": max(16, power_of_two(shape.heads // shape.kv_heads)),
        "BT": tiles.keys,
        "SPLITS": tiles.splits,
        "PHASE": phase,
        "PREFETCH": prefetch,
        "INTERPRETED": interpreted,
    }


def options(tiles: Tiles, phase: int) -> dict[str, int | bool]:
    """How to compile a phase of the kernel, and how to launch it."""
    chosen: dict[str, int | bool] = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    if tiles.registers is not None:
        chosen["maxnreg"] = tiles.registers
    if phase == PERSISTENT:
        chosen["launch_cooperative_grid"] = True
    return chosen


def units(shape: BlockShape, tiles: Tiles, batch: int, phase: int) -> int:
    """How many programs a phase can keep busy."""
    if phase == 0:
        return (shape.heads + 2 * shape.kv_heads) * -(-(shape.head_dim // 2) // tiles.pairs)
    if phase == 1:
        return batch * shape.kv_heads * tiles.splits
    if phase == 3:
        return -(-shape.ffn // tiles.hidden)
    return -(-shape.dim // tiles.outputs)


class Scratch(NamedTuple):
    """Memory that phases hand results over in, in the kernel's order of arguments. Only `counters` must be zero."""

    x_mid: Tensor
    q: Tensor
    partial: Tensor
    weight: Tensor
    mixed: Tensor
    hidden: Tensor
    counters: Tensor


def scratch(x: Tensor, weights: BlockWeights, shape: BlockShape, cache: torch.dtype, splits: int) -> Scratch:
    """Scratch for the rows of `x`."""
    batch = x.shape[0]
    return Scratch(
        x_mid=torch.empty_like(x),
        q=x.new_empty(batch, shape.attention_width, dtype=cache),
        partial=x.new_empty(batch, shape.heads, splits, shape.head_dim),
        weight=x.new_empty(batch, shape.heads, splits, 2),
        mixed=x.new_empty(batch, shape.attention_width, dtype=weights.o.dtype),
        hidden=x.new_empty(batch, shape.ffn, dtype=weights.down.dtype),
        counters=torch.zeros(1 + batch * shape.kv_heads, dtype=torch.int32, device=x.device),
    )


def launch(  # noqa: PLR0917 - the order of `decode_step`
    execution: Execution,
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
    repeat: int,
    grid: int | None = None,
) -> Tensor:
    """Run the kernel on `x`, as `decode_step` describes it; `grid` overrides the number of programs."""
    from predawn.kernels.shared_block.kernel import shared_block_decode

    kernel: Any = shared_block_decode
    assert execution.tiles is not None, "eager execution has no launch"
    tiles = execution.tiles.fitted(shape, weights.down.element_size())
    out = x.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    stacks = (weights.qkv, weights.o, weights.gate_up, weights.down, weights.norm1, weights.norm2)
    cache = (k_cache, v_cache, pages.contiguous(), positions.contiguous(), cos, sin)
    tensors = (out, *scratch(out, weights, shape, k_cache.dtype, tiles.splits), *stacks, *cache)
    rest = (repeat, shape.repeat, x.shape[0], pages.shape[1], k_cache.stride(0), shape.eps, shape.head_dim**-0.5)
    page, prefetch, interpreted = k_cache.shape[2], execution.prefetch, execution.interpreted

    def run(phase: int, programs: int, low: int, high: int) -> None:
        fixed = constants(shape, tiles, page=page, phase=phase, prefetch=prefetch, interpreted=interpreted)
        kernel[(grid or programs,)](*tensors, low, high, *rest, **fixed, **options(tiles, phase))

    passes = shape.layers * repeat
    if execution.mode == "persistent":
        run(PERSISTENT, execution.programs, 0, passes)
    else:
        for step in range(passes):
            for phase in PHASES:
                run(phase, units(shape, tiles, x.shape[0], phase), step, step + 1)
    return out
