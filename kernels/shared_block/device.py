# ruff: noqa: ANN001, ANN201, N803, N806, PLR0917, SIM102
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# Triton reads the source, not the types: a parameter in capitals is known when the kernel is compiled.
"""What the phases of the kernel are built from: products, rounding, masked loads, the grid barrier, prefetching.

`INTERPRETED` is true when Triton's interpreter runs the kernel on a CPU. It stores bfloat16 as 16-bit integers, which
two functions here make up for, so that what is tested is what a GPU computes.
"""

import triton
import triton.language as tl


@triton.jit
def dot(a, b, acc, INTERPRETED: tl.constexpr):
    """`acc + a @ b`, summed in fp32."""
    if INTERPRETED:
        # it would multiply the bit patterns of bfloat16
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision="ieee")


@triton.jit
def narrow(v, dtype: tl.constexpr, INTERPRETED: tl.constexpr):
    """fp32 rounded to `dtype`, to nearest even."""
    if INTERPRETED and dtype == tl.bfloat16:
        # it would cut the lower half off; round first, and there is nothing left to cut
        bits = v.to(tl.uint32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        v = bits.to(tl.float32, bitcast=True)
    return v.to(dtype)


@triton.jit
def load_weights(pointers, inside, FULL: tl.constexpr):
    """A tile of weights; `FULL` says that the tile cannot reach over the edge, and spares the comparison."""
    if FULL:
        tile = tl.load(pointers)
    else:
        tile = tl.load(pointers, mask=inside, other=0.0)
    return tile


@triton.jit
def load_shared(pointers, inside):
    """What other programs of this launch may have written: from L2, for L1 is not coherent between SMs."""
    return tl.load(pointers, mask=inside, other=0.0, cache_modifier=".cg")


@triton.jit
def inverse_rms(x, row, live, eps, D: tl.constexpr, BK: tl.constexpr):
    """One over the root mean square of each row of `x [batch, D]`."""
    squares = tl.zeros(row.shape, tl.float32)
    for k0 in range(0, D, BK):
        k = k0 + tl.arange(0, BK)
        xk = load_shared(x + row[:, None] * D + k[None, :], live[:, None] & (k < D)[None, :])
        squares += tl.sum(xk * xk, axis=1)
    return tl.rsqrt(squares / D + eps)


@triton.jit
def grid_barrier(word):
    """Wait until all programs of the launch are here; needs them resident together (a cooperative launch).

    Each arrival adds to one 32-bit word, zero at first, so that all of them together flip its highest bit, and waits
    for the flip. Nothing is reset, hence the word serves any number of barriers (Inductor's scheme). Release and
    acquire order what was written before the barrier ahead of what is read after it.
    """
    tl.debug_barrier()
    one = tl.full((), 1, tl.int32)
    arrival = one
    if tl.program_id(0) == 0:
        arrival = tl.full((), -(2**31), tl.int32) - (tl.num_programs(0) - one)
    before = tl.atomic_add(word, arrival, sem="release", scope="gpu")
    waiting = True
    while waiting:
        now = tl.atomic_add(word, tl.full((), 0, tl.int32), sem="acquire", scope="gpu")
        waiting = (before ^ now) >= 0
    tl.debug_barrier()


@triton.jit
def prefetch_if(wanted, pointer, elements: tl.constexpr, ENABLED: tl.constexpr):
    """Ask for `elements` from `pointer` on to be brought into L2, if `wanted` (NVIDIA).

    Returns at once, and no register waits for them. All programs share the 128-byte lines, a thread asks for one at a
    time. Plain priority: `evict_last` would let weights that are done with push out the activations, which every phase
    reads again.
    """
    if ENABLED:
        if wanted:
            PER_LINE: tl.constexpr = 128 // (pointer.dtype.element_ty.primitive_bitwidth // 8)
            COUNT: tl.constexpr = (elements + PER_LINE - 1) // PER_LINE
            for first in range(tl.program_id(0) * 128, COUNT, tl.num_programs(0) * 128):
                line = tl.minimum(first + tl.arange(0, 128), COUNT - 1)
                tl.inline_asm_elementwise(
                    "prefetch.global.L2 [$1]; mov.u32 $0, 0;",
                    "=r,l",
                    [pointer + line.to(tl.int64) * PER_LINE],
                    dtype=tl.int32,
                    is_pure=False,
                    pack=1,
                )
