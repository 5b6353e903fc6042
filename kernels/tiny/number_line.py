"""Gives the embeddings of numbers a shape to calculate with before training begins.

Networks that learn to add settle on cosines and sines of the numbers by themselves (Nanda et al. 2023), for products of
those are cosines and sines of sums. Begun with them, adding and taking away are learnt in half the steps.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from predawn.kernels.tiny.network import Network

PERIODS = (2, 5, 10, 20, 50, 100, 200)
_SCALE = 0.25


@torch.no_grad()
def lay(network: Network, numbers: Sequence[int]) -> None:
    """Write the waves of 0, 1, 2, … into the embeddings of the tokens `numbers`, after the place of the constant."""
    for number, token in enumerate(numbers):
        angles = [2 * math.pi * number / period for period in PERIODS]
        waves = torch.tensor([wave for angle in angles for wave in (math.cos(angle), math.sin(angle))])
        network.embed[token, 1 : 1 + len(waves)] = _SCALE * waves
