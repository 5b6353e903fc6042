"""What a checkpoint says about its model."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from predawn.kernels.engine.rope import Llama3Scaling
from predawn.kernels.shape import BlockShape

LARGEST = 1 << 24
"""Beyond this a number in a file is an accident or an attack, not the dimension of a model."""
MOST_LAYERS = 1 << 12
MOST_REPEATS = 1 << 6
MOST_POSITIONS = 1 << 21
"""A table of angles has as many rows: 1 GB at this length."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A decoder of the Llama family, with or without shared blocks, whatever file format it came in."""

    shape: BlockShape
    vocab: int
    max_positions: int
    """Tokens of prompt and answer together that the model was made for."""
    tied: bool
    """The output projection is the embedding."""
    dtype: torch.dtype
    """Of the weights as stored; what a quantised file was made from counts as float32."""
    rope_scaling: Llama3Scaling | None = None
    rope_factors: tuple[float, ...] = ()
    """What divides the frequency of each rotary pair: scaling as GGUF files have it."""
    eos_ids: tuple[int, ...] = ()
    bos_id: int | None = None
    name: str = ""
    """What the checkpoint calls itself, for messages and listings."""
