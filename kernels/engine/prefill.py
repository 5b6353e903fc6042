"""Prompts: many tokens of one sequence at once, in plain torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from predawn.kernels.engine.blocks import Block, Rotation, feed_forward, normalised
from predawn.kernels.engine.kv import KV, PAGE
from predawn.kernels.shape import BlockShape


def prefill(
    x: Tensor,
    start: int,
    pages: Tensor,
    kv: KV,
    *,
    blocks: Sequence[Block],
    rotation: Rotation,
    shape: BlockShape,
    repeat: int,
) -> Tensor:
    """Run embedded tokens `[T, dim + 1]`, widened, at `start` and after it.

    Their keys and values go into `pages` `[n]`. They attend to what these pages hold from before `start`, and to one
    another causally. `x` is used up.
    """
    count, dtype = x.shape[0], kv.k.dtype
    end = start + count
    places = torch.arange(end, device=x.device)
    held = pages.long()[places // PAGE] * PAGE + places % PAGE
    positions, slots = places[start:], held[start:]
    turns = rotation.at(positions)
    seen = None if start == 0 else positions[:, None] >= places
    widths = [part * shape.head_dim for part in (shape.heads + shape.kv_heads, shape.kv_heads)]
    for number, block in enumerate(blocks):
        for layer in range(number * shape.repeat, number * shape.repeat + repeat):
            turned, values = block.qkv(normalised(x, block.norm1, dtype)).split(widths, -1)
            turned = rotation.rotate(turned.float().view(count, -1, shape.head_dim), turns).to(dtype)
            queries, keys = turned.split([shape.heads, shape.kv_heads], 1)
            kv.write(layer, slots, keys, values.view(count, -1, shape.head_dim))
            keys, values = kv.read(layer, held)
            attended = functional.scaled_dot_product_attention(
                queries.transpose(0, 1)[None],
                keys[None],
                values[None],
                attn_mask=seen,
                is_causal=seen is None and count > 1,
                enable_gqa=True,
            )
            x[:, :-1].add_(block.o(attended[0].transpose(0, 1).reshape(count, -1)))
            feed_forward(block, x, dtype)
    return x
