"""Lays a circuit for looking things up into a network before it learns anything.

Answering from a story is looking up by name: whose number stands after `Bob =`? That takes two heads that work together
(an induction head, Olsson et al. 2022): one makes each token carry those just before it, another finds the token that
carries the name in question. Alone neither is of use, so nothing leads training to the pair: five million tokens did
not. Laid in by hand they look up 97 % of names after thirty steps, and what else is to be looked up grows from there.

Positions are told apart without biases: every embedding has the same number in its first place, queries and keys read
that one number, and the fast rotary pairs turn it into a peak at a fixed distance. Names are compared in the slow
pairs, which hardly turn.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from predawn.kernels.tiny.network import Block, Network

CONSTANT = 1.0
"""In the first place of each embedding, ten times what stands elsewhere."""
FAST_PAIRS = 6
SLOW_FROM = 14
"""Rotary pairs from here on turn by less than 0.01 a token."""
_LOOKING_BACK = 0.8
_CARRYING = 0.2
_MATCHING = 1.7
_HANDING_ON = 0.3


@torch.no_grad()
def lay(network: Network) -> None:
    """Lay the circuit into the first two blocks; their other heads and matrices stay as they are."""
    size = network.shape.head_dim
    carried, _ = torch.linalg.qr(torch.randn(network.shape.dim - 1, 2 * size))
    carried = torch.cat([torch.zeros(1, 2 * size), carried])
    network.embed[:, 0] = CONSTANT
    first, second = cast("list[Block]", list(network.blocks)[:2])
    before, before_that = carried[:, :size], carried[:, size:]
    _look_back(first, 0, 1, before)
    _look_back(first, 1, 2, before_that)
    first.v_proj[:size, 0] = 0
    _match(second, before, before_that)


def _look_back(block: Block, head: int, distance: int, carried: Tensor) -> None:
    """Make a head of the first key-value group attend `distance` tokens back and write what it sees to `carried`."""
    size = block.shape.head_dim
    half, rows = size // 2, slice(head * size, (head + 1) * size)
    block.k_proj[:size] = 0
    block.q_proj[rows] = 0
    for pair in range(FAST_PAIRS):
        angle = distance * block.shape.rope_theta ** (-pair / half)
        block.k_proj[pair, 0] = _LOOKING_BACK
        block.q_proj[head * size + pair, 0] = _LOOKING_BACK * math.cos(angle)
        block.q_proj[head * size + half + pair, 0] = -_LOOKING_BACK * math.sin(angle)
    block.o_proj[:, rows] = _CARRYING * carried


def _match(block: Block, asked: Tensor, carried: Tensor) -> None:
    """Make the first head attend where `carried` holds what `asked` holds here, and hand on the token found there."""
    size = block.shape.head_dim
    half = size // 2
    slow = [*range(SLOW_FROM, half), *range(half + SLOW_FROM, size)]
    block.q_proj[:size] = 0
    block.k_proj[:size] = 0
    block.q_proj[slow] = _MATCHING * asked[:, slow].T
    block.k_proj[slow] = _MATCHING * carried[:, slow].T
    block.v_proj[:size, 0] = 0
    block.o_proj[:, :size] = _HANDING_ON * block.v_proj[:size].T
