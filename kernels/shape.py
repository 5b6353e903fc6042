"""The shape of a decoder of weight-shared blocks, and its weights stacked for the kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class BlockShape:
    """A Llama decoder of `layers` stored blocks, each run `repeat` times in a row (MobileLLM, arXiv 2402.14905).

    `repeat` 1 is an ordinary Llama. Dimensions are in elements.
    """

    dim: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    layers: int
    repeat: int = 2
    eps: float = 1e-5
    rope_theta: float = 10_000.0

    @property
    def passes(self) -> int:
        """How often a token goes through a block; also how many KV layers there are, for each pass has its own."""
        return self.layers * self.repeat

    @property
    def qkv_rows(self) -> int:
        """Rows of the stacked projection to queries, keys and values."""
        return (self.heads + 2 * self.kv_heads) * self.head_dim

    @property
    def attention_width(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head_dim

    @property
    def block_params(self) -> int:
        """Matrix parameters of one stored block, norms aside."""
        return self.dim * (self.qkv_rows + self.attention_width + 3 * self.ffn)


@dataclass(frozen=True, slots=True)
class BlockWeights:
    """The weights of all stored blocks, stacked over the first axis; rows are outputs, as in published checkpoints."""

    qkv: Tensor
    """`[layers, qkv_rows, dim]`: queries, keys, values; rotary pairs are half a head apart."""
    o: Tensor
    """`[layers, dim, attention_width]`"""
    gate_up: Tensor
    """`[layers, 2, ffn, dim]`"""
    down: Tensor
    """`[layers, dim, ffn]`"""
    norm1: Tensor
    """`[layers, dim]`, before attention"""
    norm2: Tensor
    """`[layers, dim]`, before the feed-forward part"""
