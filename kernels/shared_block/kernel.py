# ruff: noqa: ANN001, ANN201, N803, N806, PLR0917
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# Triton reads the source, not the types: a parameter in capitals is known when the kernel is compiled.
"""The fused decode step: one kernel source, run a phase per launch or as one persistent launch."""

import triton
import triton.language as tl

from predawn.kernels.shared_block.device import grid_barrier, prefetch_if
from predawn.kernels.shared_block.phases import attend, feed_up, project_back, project_qkv


@triton.jit(do_not_specialize=["pass_low", "pass_high", "repeat", "stored_repeat", "batch", "max_pages"])
def shared_block_decode(
    x, x_mid, q, partial, weight, mixed, hidden, counters,
    w_qkv, w_o, w_gate_up, w_down, norm1, norm2,
    k_cache, v_cache, pages, positions, cos, sin,
    pass_low, pass_high, repeat, stored_repeat, batch, max_pages, kv_stride, eps, scale,
    D: tl.constexpr, HQ: tl.constexpr, HKV: tl.constexpr, DH: tl.constexpr, DP: tl.constexpr, FFN: tl.constexpr,
    PAGE: tl.constexpr, BM: tl.constexpr, PT: tl.constexpr, BN: tl.constexpr, BI: tl.constexpr, BK: tl.constexpr,
    BB: tl.constexpr, BG: tl.constexpr, BT: tl.constexpr, SPLITS: tl.constexpr,
    PHASE: tl.constexpr, PREFETCH: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """Passes `pass_low ≤ p < pass_high` of one decode step; pass p is repetition `p % repeat` of block `p // repeat`.

    `PHASE` 0 to 4: that phase only, and the end of the launch is the barrier; this can be captured in a CUDA graph,
    needs no programs resident together, and runs in the interpreter. `PHASE` -1: all phases in one launch, with a grid
    barrier after each; it must be launched cooperatively unless the grid is (1,).

    `x [batch, D]` fp32 is the residual stream, changed in place. Scratch: `x_mid [batch, D]` fp32, `q [batch, HQ, DH]`
    in the cache's type, `partial [batch, HQ, SPLITS, DH]` and `weight [batch, HQ, SPLITS, 2]` fp32, `mixed [batch, HQ,
    DH]` and `hidden [batch, FFN]` in the weights' type, `counters [1 + batch * HKV]` int32 zeros. Weights are stacked
    as in `BlockWeights`. Caches are `[layers * stored_repeat, n_pages, PAGE, HKV, DH]`, `kv_stride` elements between
    two passes, the rest contiguous. `pages [batch, max_pages]` and `positions [batch]` are int32, `cos` and `sin
    [max_positions, DH / 2]` fp32.

    `PREFETCH` (persistent, NVIDIA): in the last pass over a block the weights come out of L2 and HBM is idle. So as
    soon as a matrix has been used for the last time, the same matrix of the next block is asked for. Each has four
    phases to arrive in, traffic is spread over the pass in proportion to bytes, and L2 need hold little more than one
    block.
    """
    ALL: tl.constexpr = PHASE < 0
    AHEAD: tl.constexpr = PREFETCH and ALL
    QKV: tl.constexpr = (HQ + 2 * HKV) * DH * D
    OUT: tl.constexpr = D * HQ * DH
    UP: tl.constexpr = 2 * FFN * D
    DOWN: tl.constexpr = D * FFN
    # the first block has no pass before it: fetch the rest of it while its first phase runs
    first = tl.full((), 0, tl.int64) + pass_low // repeat
    prefetch_if(first >= 0, w_o + first * OUT, OUT, AHEAD)
    prefetch_if(first >= 0, w_gate_up + first * UP, UP, AHEAD)
    prefetch_if(first >= 0, w_down + first * DOWN, DOWN, AHEAD)
    for step in range(pass_low, pass_high):
        # int64, for offsets of large stacks; by addition, because the interpreter counts in plain integers
        p = tl.full((), 0, tl.int64) + step
        block = p // repeat
        zero = (step >> 30) * 16  # a known multiple of 16, so that wide loads stay wide
        kv = (block * stored_repeat + p % repeat) * kv_stride
        more = (p % repeat == repeat - 1) & (p + 1 < pass_high)
        if ALL or PHASE == 0:
            project_qkv(
                zero, x, w_qkv + block * QKV, norm1 + block * D, q, k_cache + kv, v_cache + kv, cos, sin,
                pages, positions, batch, max_pages, eps, scale, D, HQ, HKV, DH, PAGE, BM, PT, BK, INTERPRETED,
            )  # fmt: skip
        prefetch_if(more, w_qkv + (block + 1) * QKV, QKV, AHEAD)
        if ALL:
            grid_barrier(counters)
        if ALL or PHASE == 1:
            attend(
                zero, q, k_cache + kv, v_cache + kv, partial, weight, counters + 1, mixed, pages, positions,
                batch, max_pages, HQ, HKV, DH, DP, PAGE, BG, BT, SPLITS, INTERPRETED,
            )  # fmt: skip
        if ALL:
            grid_barrier(counters)
        if ALL or PHASE == 2:
            project_back(zero, mixed, w_o + block * OUT, x, x_mid, batch, HQ * DH, D, BM, BN, BB, INTERPRETED)
        prefetch_if(more, w_o + (block + 1) * OUT, OUT, AHEAD)
        if ALL:
            grid_barrier(counters)
        if ALL or PHASE == 3:
            feed_up(
                zero, x_mid, w_gate_up + block * UP, norm2 + block * D, hidden, batch, eps,
                D, FFN, BM, BI, BK, INTERPRETED,
            )  # fmt: skip
        prefetch_if(more, w_gate_up + (block + 1) * UP, UP, AHEAD)
        if ALL:
            grid_barrier(counters)
        if ALL or PHASE == 4:
            project_back(zero, hidden, w_down + block * DOWN, x_mid, x, batch, FFN, D, BM, BN, BB, INTERPRETED)
        prefetch_if(more, w_down + (block + 1) * DOWN, DOWN, AHEAD)
        if ALL:
            grid_barrier(counters)
