# ruff: noqa: ANN001, ANN201, N803, N806, PLR0917
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# pyright: reportOperatorIssue=false
# Triton reads the source, not the types: a parameter in capitals is known when the kernel is compiled.
"""The five phases of one pass through a block. Everything of a phase must be written before the next one reads.

A phase is a number of units (a tile of outputs, or a split of a head's keys); programs take them in turn. No unit's
arithmetic depends on the grid, on the batch size or on another row: tiles are always `BM` rows tall, dead ones masked.
So a row's result is the same to the bit in any batch.

Tile sizes: `BM` rows, `PT` rotary pairs, `BN` outputs, `BI` hidden units, `BK` inputs, `BG` query heads of one KV head,
`BT` keys; `DP` is the head dimension rounded up to a power of two.

`zero` is 0, which the compiler cannot know. Otherwise it computes the indices of all five phases ahead of the loop over
passes and keeps them: the persistent kernel took all 255 registers and spilled, with it 150 to 180 suffice.
"""

import triton
import triton.language as tl

from predawn.kernels.shared_block.device import dot, inverse_rms, load_shared, load_weights, narrow


@triton.jit
def project_qkv(
    zero, x, w, g, q, k_cache, v_cache, cos, sin, pages, positions, batch, max_pages, eps, scale,
    D: tl.constexpr, HQ: tl.constexpr, HKV: tl.constexpr, DH: tl.constexpr, PAGE: tl.constexpr,
    BM: tl.constexpr, PT: tl.constexpr, BK: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """Phase 0: RMSNorm, queries, keys and values, rotary embedding; keys and values go straight to their page.

    Queries leave scaled by `scale` and rounded to the KV cache's type.
    """
    HALF: tl.constexpr = DH // 2
    TILES: tl.constexpr = (HALF + PT - 1) // PT
    FULL: tl.constexpr = HALF % PT == 0 and D % BK == 0
    # fp16 ends at 65504, and residual streams of real models pass that: normalise before rounding, at a second reading
    # of x. The wider range of bfloat16 allows to normalise the sums instead.
    NORM_FIRST: tl.constexpr = w.dtype.element_ty == tl.float16
    row = zero + tl.arange(0, BM)
    live = row < batch
    position = tl.load(positions + row, mask=live, other=0)
    page = tl.load(pages + row * max_pages + position // PAGE, mask=live, other=0)
    slot = (page.to(tl.int64) * PAGE + position % PAGE) * HKV
    for unit in range(tl.program_id(0), (HQ + 2 * HKV) * TILES, tl.num_programs(0)):
        h = unit // TILES
        c = (unit % TILES) * PT + zero + tl.arange(0, PT)
        a0 = tl.zeros((BM, PT), tl.float32)
        a1 = tl.zeros((BM, PT), tl.float32)
        squares = tl.zeros((BM,), tl.float32)
        inverse = squares
        if NORM_FIRST:
            inverse = inverse_rms(x, row, live, eps, D, BK)
        for k0 in range(0, D, BK):
            k = k0 + zero + tl.arange(0, BK)
            xk = load_shared(x + row[:, None] * D + k[None, :], live[:, None] & (k < D)[None, :])
            if NORM_FIRST:
                xk *= inverse[:, None]
            else:
                squares += tl.sum(xk * xk, axis=1)
            gk = load_weights(g + k, k < D, FULL).to(tl.float32)
            xk = narrow(xk * gk[None, :], w.dtype.element_ty, INTERPRETED)
            inside = (c < HALF)[None, :] & (k < D)[:, None]
            wp = w + (h * DH + c)[None, :] * D + k[:, None]
            a0 = dot(xk, load_weights(wp, inside, FULL), a0, INTERPRETED)
            a1 = dot(xk, load_weights(wp + HALF * D, inside, FULL), a1, INTERPRETED)
        if not NORM_FIRST:
            inverse = tl.rsqrt(squares / D + eps)
            a0 *= inverse[:, None]
            a1 *= inverse[:, None]
        inside = live[:, None] & (c < HALF)[None, :]
        if h < HQ + HKV:
            cs = tl.load(cos + position[:, None] * HALF + c[None, :], mask=inside, other=0.0)
            sn = tl.load(sin + position[:, None] * HALF + c[None, :], mask=inside, other=0.0)
            turned = a0 * cs - a1 * sn
            a1 = a1 * cs + a0 * sn
            a0 = turned
        if h < HQ:
            to = q + row[:, None] * (HQ * DH) + h * DH + c[None, :]
            tl.store(to, narrow(a0 * scale, q.dtype.element_ty, INTERPRETED), mask=inside)
            tl.store(to + HALF, narrow(a1 * scale, q.dtype.element_ty, INTERPRETED), mask=inside)
        elif h < HQ + HKV:
            to = k_cache + (slot[:, None] + (h - HQ)) * DH + c[None, :]
            tl.store(to, narrow(a0, k_cache.dtype.element_ty, INTERPRETED), mask=inside)
            tl.store(to + HALF, narrow(a1, k_cache.dtype.element_ty, INTERPRETED), mask=inside)
        else:
            to = v_cache + (slot[:, None] + (h - HQ - HKV)) * DH + c[None, :]
            tl.store(to, narrow(a0, v_cache.dtype.element_ty, INTERPRETED), mask=inside)
            tl.store(to + HALF, narrow(a1, v_cache.dtype.element_ty, INTERPRETED), mask=inside)


@triton.jit
def attend(
    zero, q, k_cache, v_cache, partial, weight, arrived, mixed, pages, positions, batch, max_pages,
    HQ: tl.constexpr, HKV: tl.constexpr, DH: tl.constexpr, DP: tl.constexpr, PAGE: tl.constexpr,
    BG: tl.constexpr, BT: tl.constexpr, SPLITS: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """Phase 1: attention of one KV head's queries over one split of a sequence's keys (flash decoding).

    A unit leaves its unnormalised sum in `partial [batch, HQ, SPLITS, DH]`, and its greatest score and denominator in
    `weight [batch, HQ, SPLITS, 2]`. The last unit of a sequence and KV head to arrive puts the splits together, in
    their own order whoever comes last, and writes `mixed [batch, HQ, DH]` in the weights' type. `arrived [batch, HKV]`
    counts them; it is zero before and after.
    """
    GROUP: tl.constexpr = HQ // HKV
    gi = zero + tl.arange(0, BG)
    d = zero + tl.arange(0, DP)
    for unit in range(tl.program_id(0), batch * HKV * SPLITS, tl.num_programs(0)):
        split = unit % SPLITS
        hk = (unit // SPLITS) % HKV
        b = unit // (SPLITS * HKV)
        n = tl.load(positions + b) + 1
        # whole tiles; a function of this sequence only, never of the batch
        length = tl.cdiv(tl.cdiv(n, SPLITS), BT) * BT
        splits = tl.cdiv(n, length)
        if split < splits:
            head = b * HQ + hk * GROUP + gi
            mine = (gi < GROUP)[:, None] & (d < DH)[None, :]
            qh = load_shared(q + head[:, None] * DH + d[None, :], mine)
            top = tl.full((BG,), -1.0e30, tl.float32)
            total = tl.zeros((BG,), tl.float32)
            acc = tl.zeros((BG, DP), tl.float32)
            high = tl.minimum(n, (split + 1) * length)
            for t0 in range(split * length, high, BT):
                t = t0 + zero + tl.arange(0, BT)
                used = t < high
                page = tl.load(pages + b * max_pages + t // PAGE, mask=used, other=0)
                slot = ((page.to(tl.int64) * PAGE + t % PAGE) * HKV + hk) * DH
                # rows after the last key hold what another request left there, NaN for all we know: never loaded
                kt = load_shared(k_cache + slot[None, :] + d[:, None], used[None, :] & (d < DH)[:, None])
                vt = load_shared(v_cache + slot[:, None] + d[None, :], used[:, None] & (d < DH)[None, :])
                score = dot(qh, kt, tl.zeros((BG, BT), tl.float32), INTERPRETED)
                score = tl.where(used[None, :], score, -1.0e30)
                new_top = tl.maximum(top, tl.max(score, axis=1))
                fade = tl.exp(top - new_top)
                p = tl.exp(score - new_top[:, None])
                total = total * fade + tl.sum(p, axis=1)
                acc = dot(narrow(p, v_cache.dtype.element_ty, INTERPRETED), vt, acc * fade[:, None], INTERPRETED)
                top = new_top
            at = head * SPLITS + split
            tl.store(partial + at[:, None] * DH + d[None, :], acc, mask=mine)
            tl.store(weight + at * 2, top, mask=gi < GROUP)
            tl.store(weight + at * 2 + 1, total, mask=gi < GROUP)
            # all threads' parts are written before this program counts itself, and read after it has counted the others
            tl.debug_barrier()
            counter = arrived + b * HKV + hk
            before = tl.atomic_add(counter, tl.full((), 1, tl.int32), sem="acq_rel", scope="gpu")
            if before == splits - 1:
                tl.debug_barrier()
                out = put_together(partial, weight, head * SPLITS, splits, gi < GROUP, mine, d, DH, BG, DP)
                out = narrow(out, mixed.dtype.element_ty, INTERPRETED)
                tl.store(mixed + head[:, None] * DH + d[None, :], out, mask=mine)
                tl.store(counter, 0)


@triton.jit
def put_together(
    partial, weight, base, splits, real, mine, d, DH: tl.constexpr, BG: tl.constexpr, DP: tl.constexpr
):  # fmt: skip
    """The attention of `BG` heads from their `splits` parts, which begin at `base`; `[BG, DP]` fp32."""
    top = tl.full((BG,), -1.0e30, tl.float32)
    total = tl.zeros((BG,), tl.float32)
    acc = tl.zeros((BG, DP), tl.float32)
    for split in range(splits):
        at = base + split
        part_top = load_shared(weight + at * 2, real)
        part_total = load_shared(weight + at * 2 + 1, real)
        part = load_shared(partial + at[:, None] * DH + d[None, :], mine)
        new_top = tl.maximum(top, part_top)
        fade = tl.exp(top - new_top)
        share = tl.exp(part_top - new_top)
        total = total * fade + part_total * share
        acc = acc * fade[:, None] + part * share[:, None]
        top = new_top
    return acc / tl.where(real, total, 1.0)[:, None]


@triton.jit
def feed_up(
    zero, x_mid, w, g, hidden, batch, eps,
    D: tl.constexpr, FFN: tl.constexpr, BM: tl.constexpr, BI: tl.constexpr, BK: tl.constexpr,
    INTERPRETED: tl.constexpr,
):  # fmt: skip
    """Phase 3: RMSNorm, gate and up, SwiGLU; `hidden [batch, FFN]` in the weights' type."""
    FULL: tl.constexpr = FFN % BI == 0 and D % BK == 0
    NORM_FIRST: tl.constexpr = w.dtype.element_ty == tl.float16
    row = zero + tl.arange(0, BM)
    live = row < batch
    for unit in range(tl.program_id(0), tl.cdiv(FFN, BI), tl.num_programs(0)):
        i = unit * BI + zero + tl.arange(0, BI)
        gate = tl.zeros((BM, BI), tl.float32)
        up = tl.zeros((BM, BI), tl.float32)
        squares = tl.zeros((BM,), tl.float32)
        inverse = squares
        if NORM_FIRST:
            inverse = inverse_rms(x_mid, row, live, eps, D, BK)
        for k0 in range(0, D, BK):
            k = k0 + zero + tl.arange(0, BK)
            xk = load_shared(x_mid + row[:, None] * D + k[None, :], live[:, None] & (k < D)[None, :])
            if NORM_FIRST:
                xk *= inverse[:, None]
            else:
                squares += tl.sum(xk * xk, axis=1)
            gk = load_weights(g + k, k < D, FULL).to(tl.float32)
            xk = narrow(xk * gk[None, :], w.dtype.element_ty, INTERPRETED)
            inside = (i < FFN)[None, :] & (k < D)[:, None]
            wp = w + i[None, :] * D + k[:, None]
            gate = dot(xk, load_weights(wp, inside, FULL), gate, INTERPRETED)
            up = dot(xk, load_weights(wp + FFN * D, inside, FULL), up, INTERPRETED)
        if not NORM_FIRST:
            inverse = tl.rsqrt(squares / D + eps)
            gate *= inverse[:, None]
            up *= inverse[:, None]
        out = narrow(gate * tl.sigmoid(gate) * up, hidden.dtype.element_ty, INTERPRETED)
        tl.store(hidden + row[:, None] * FFN + i[None, :], out, mask=live[:, None] & (i < FFN)[None, :])


@triton.jit
def project_back(
    zero, source, w, residual, out, batch,
    K: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """Phases 2 and 4: what attention or the hidden units made, back to the residual: `out = residual + w @ source`."""
    FULL: tl.constexpr = D % BN == 0 and K % BK == 0
    row = zero + tl.arange(0, BM)
    live = row < batch
    for unit in range(tl.program_id(0), tl.cdiv(D, BN), tl.num_programs(0)):
        o = unit * BN + zero + tl.arange(0, BN)
        acc = tl.zeros((BM, BN), tl.float32)
        for k0 in range(0, K, BK):
            k = k0 + zero + tl.arange(0, BK)
            xk = load_shared(source + row[:, None] * K + k[None, :], live[:, None] & (k < K)[None, :])
            wp = w + o[None, :] * K + k[:, None]
            acc = dot(xk, load_weights(wp, (o < D)[None, :] & (k < K)[:, None], FULL), acc, INTERPRETED)
        at = row[:, None] * D + o[None, :]
        inside = live[:, None] & (o < D)[None, :]
        tl.store(out + at, acc + load_shared(residual + at, inside), mask=inside)
