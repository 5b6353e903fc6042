"""One token of each of a few sequences, on a CPU.

An operation costs about as much to call as to compute at these sizes, so a pass is made of few: keys and values are
written, and gathered, in one. Each row attends over exactly its own positions, so padding and neighbours cannot touch
its bits; rows of equal length, such as samples of one prompt, are attended together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from predawn.kernels.engine.blocks import Block, feed_forward, few_rows, normalised
from predawn.kernels.engine.decoder import Between
from predawn.kernels.engine.kv import KV, PAGE
from predawn.kernels.engine.rope import Interleaved
from predawn.kernels.shape import BlockShape


@dataclass(frozen=True, slots=True)
class _Peers:
    """Rows of equal length."""

    rows: Tensor | None
    """`[count]`, or None for all rows in their order."""
    slots: Tensor
    """`[count * length]`: where their keys and values are, one row's after another's."""
    count: int
    length: int


@dataclass(frozen=True, slots=True)
class Step:
    """What all passes of a decode step have in common."""

    slots: Tensor
    """`[rows]`: where each row's key and value go."""
    turns: Tensor
    """`[rows, 1, head_dim / 2]` complex"""
    peers: tuple[_Peers, ...]
    order: Tensor | None
    """`[rows]`: where each row is found when the peers' results lie one after another; None if in place."""


def planned(positions: Tensor, pages: Tensor, rotation: Interleaved) -> Step:
    """The step of rows at `positions` `[rows]` whose sequences have `pages` `[rows, max_pages]`."""
    lengths = [position + 1 for position in positions.tolist()]
    places = torch.arange(max(lengths))
    offsets, numbers = places % PAGE, places // PAGE
    by_length: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        by_length.setdefault(length, []).append(row)
    pages = pages.long()
    peers = []
    for length, rows in by_length.items():
        chosen = None if len(by_length) == 1 else torch.tensor(rows)
        mine = pages if chosen is None else pages[chosen]
        held = mine[:, numbers[:length]] * PAGE + offsets[:length]
        peers.append(_Peers(chosen, held.flatten(), len(rows), length))
    order = None
    if len(peers) > 1:
        order = torch.tensor([row for rows in by_length.values() for row in rows]).argsort()
    last = torch.cat([one.slots.view(one.count, -1)[:, -1] for one in peers])
    turns = rotation.at(positions.long())[:, None]
    return Step(last if order is None else last[order], turns, tuple(peers), order)


def decode(
    x: Tensor,
    step: Step,
    kv: KV,
    *,
    blocks: Sequence[Block],
    shape: BlockShape,
    repeat: int,
    between: Between | None = None,
) -> Tensor:
    """Run embedded tokens `[rows, dim + 1]`, widened, through all blocks; `x` is used up.

    `x` may have more rows than the step: products of too few rows are computed otherwise, so there are some to spare.
    `between` may change the step's rows after each pass but the last of a block.
    """
    count, dtype, width = step.slots.shape[0], kv.k.dtype, shape.attention_width
    spare = x.shape[0] - count
    residual = x[:, :-1]
    for number, block in enumerate(blocks):
        first = number * shape.repeat
        for layer in range(first, first + repeat):
            if between is not None and layer > first:
                between(residual[:count], layer - 1)
            qkv = block.qkv(normalised(x, block.norm1, dtype))[:count]
            parts = few_rows(qkv)
            for part, turns in zip(parts, step.turns.split(parts[0].shape[0]), strict=True):
                _turn(part, turns, shape)
            kept = kv.rows[layer]
            kept.index_copy_(0, step.slots, qkv[:, width:])
            attended = _attend(qkv[:, :width], kept, step, shape)
            residual.add_(block.o(functional.pad(attended, (0, 0, 0, spare)) if spare else attended))
            feed_forward(block, x, dtype)
            if between is not None and layer + 1 < number * shape.repeat + repeat:
                between(residual[:count], layer)
    return x


def _turn(qkv: Tensor, turns: Tensor, shape: BlockShape) -> None:
    """Rotate queries and keys in place; values come after them."""
    heads = shape.heads + shape.kv_heads
    if qkv.dtype == torch.float32:
        torch.view_as_complex(qkv.view(qkv.shape[0], -1, shape.head_dim // 2, 2))[:, :heads].mul_(turns)
        return
    turned = qkv[:, : heads * shape.head_dim]
    wide = turned.float()
    torch.view_as_complex(wide.view(qkv.shape[0], heads, -1, 2)).mul_(turns)
    turned.copy_(wide)


def _attend(queries: Tensor, kept: Tensor, step: Step, shape: BlockShape) -> Tensor:
    """`[rows, heads * head_dim]`, each row over its own positions among the `kept` of a pass."""
    grouped = queries.unflatten(-1, (shape.kv_heads, -1, shape.head_dim))
    found = []
    for peers in step.peers:
        mine = grouped if peers.rows is None else grouped[peers.rows]
        held = kept.index_select(0, peers.slots)
        both = held.view(peers.count, peers.length, 2, shape.kv_heads, shape.head_dim).permute(2, 0, 3, 1, 4)
        keys, values = both.unbind()
        # The heads that share keys are as if they were positions: one small product for all of them.
        found.append(functional.scaled_dot_product_attention(mine, keys, values).flatten(1))
    if step.order is None:
        return found[0]
    return torch.cat(found)[step.order]
