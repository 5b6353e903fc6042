"""The network as it is trained: blocks stored once and run twice, in plain torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from torch import Tensor, nn

if TYPE_CHECKING:
    from predawn.kernels.shape import BlockShape


EMBEDDING_SCALE = 0.1
OUTPUT_SCALE = 0.35


@dataclass(frozen=True, slots=True)
class Places:
    """What depends on positions alone: the rotary embedding's cosines and sines, and who may see whom."""

    cos: Tensor
    """`[positions, head_dim / 2]`"""
    sin: Tensor
    mask: Tensor
    """`[positions, positions]`, added to attention scores: a token sees itself and what is before it."""

    @classmethod
    def table(cls, shape: BlockShape, positions: int) -> Places:
        frequencies = shape.rope_theta ** (-torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim)
        angles = torch.arange(positions, dtype=torch.float32)[:, None] * frequencies
        mask = torch.full((positions, positions), -1e9, dtype=torch.bfloat16).triu(1)
        return cls(angles.cos(), angles.sin(), mask)


def normalised(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm in fp32, handed on in bf16: matrix products are five times as fast in it on CPUs that have it."""
    return (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight).to(torch.bfloat16)


def rotated(x: Tensor, places: Places) -> Tensor:
    """`x [B, T, H, Dh]` with each half-split pair turned by its position."""
    first, second = x.float().chunk(2, -1)
    cos, sin = places.cos[: x.shape[1], None], places.sin[: x.shape[1], None]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)


class Block(nn.Module):
    """One stored block; its matrices are named as in published Llama checkpoints."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.shape = shape
        kv = shape.kv_heads * shape.head_dim
        self.q_proj, self.k_proj, self.v_proj, self.o_proj, self.gate_proj, self.up_proj, self.down_proj = (
            nn.Parameter(torch.randn(rows, columns) * columns**-0.5 * scale)
            for rows, columns, scale in (
                (shape.attention_width, shape.dim, 1.0),
                (kv, shape.dim, 1.0),
                (kv, shape.dim, 1.0),
                (shape.dim, shape.attention_width, OUTPUT_SCALE),
                (shape.ffn, shape.dim, 1.0),
                (shape.ffn, shape.dim, 1.0),
                (shape.dim, shape.ffn, OUTPUT_SCALE),
            )
        )
        self.input_layernorm = nn.Parameter(torch.ones(shape.dim))
        self.post_attention_layernorm = nn.Parameter(torch.ones(shape.dim))

    def forward(self, x: Tensor, places: Places) -> Tensor:
        """One pass: `x [B, T, D]` fp32 in and out."""
        return self.fed_forward(self.attended(x, places))

    def attended(self, x: Tensor, places: Places) -> Tensor:
        batch, length, _ = x.shape
        shape = self.shape
        stacked = torch.cat([self.q_proj, self.k_proj, self.v_proj]).to(torch.bfloat16)
        heads = F.linear(normalised(x, self.input_layernorm, shape.eps), stacked)
        q, k, v = heads.view(batch, length, -1, shape.head_dim).split([shape.heads, shape.kv_heads, shape.kv_heads], 2)
        groups = shape.heads // shape.kv_heads
        k, v = (t.repeat_interleave(groups, 2) for t in (rotated(k, places), v))
        q, k, v = (t.transpose(1, 2).flatten(0, 1) for t in (rotated(q, places) * shape.head_dim**-0.5, k, v))
        # Written out: on CPUs torch's fused attention takes 5 times as long, backwards, in bf16 (147 ms against 33).
        scores = torch.baddbmm(places.mask[:length, :length].expand(len(q), -1, -1), q, k.transpose(1, 2))
        mixed = torch.bmm(scores.softmax(-1), v).view(batch, shape.heads, length, shape.head_dim)
        return x + F.linear(mixed.transpose(1, 2).flatten(2), self.o_proj.to(torch.bfloat16))

    def fed_forward(self, x: Tensor) -> Tensor:
        hidden = normalised(x, self.post_attention_layernorm, self.shape.eps)
        gate, up = F.linear(hidden, torch.cat([self.gate_proj, self.up_proj]).to(torch.bfloat16)).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, self.down_proj.to(torch.bfloat16))


class Network(nn.Module):
    """Embedding, shared blocks, norm, and the embedding again as the output layer."""

    def __init__(self, shape: BlockShape, vocabulary: int) -> None:
        super().__init__()
        self.shape = shape
        self.embed = nn.Parameter(torch.randn(vocabulary, shape.dim) * EMBEDDING_SCALE)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.Parameter(torch.ones(shape.dim))

    def hidden(self, tokens: Tensor, places: Places) -> Tensor:
        """`tokens [B, T]` → `[B, T, D]` fp32 before the last norm."""
        x = F.embedding(tokens, self.embed)
        for block in self.blocks:
            for _ in range(self.shape.repeat):
                x = block(x, places)
        return x

    def forward(self, tokens: Tensor, places: Places, learnt: Tensor) -> Tensor:
        """Logits fp32 at the flat positions `learnt [N]` of `tokens [B, T]`: only those that are learnt from."""
        chosen = self.hidden(tokens, places).flatten(0, 1)[learnt]
        return F.linear(normalised(chosen, self.norm, self.shape.eps), self.embed.to(torch.bfloat16)).float()
