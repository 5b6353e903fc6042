"""Models with shared blocks in transformers, and their weights as the kernels take them."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from predawn.kernels.reference import decode_step, rms_norm, rope_tables
from predawn.kernels.shape import BlockShape, BlockWeights

VOCAB = 200


def llama(shape: BlockShape) -> LlamaForCausalLM:
    """A random Llama of `shape.passes` layers; each run of `shape.repeat` shares its weights, none shares its cache."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=shape.dim,
            intermediate_size=shape.ffn,
            num_hidden_layers=shape.passes,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            rms_norm_eps=shape.eps,
            initializer_range=0.2,
            tie_word_embeddings=True,
            max_position_embeddings=128,
        )
    ).eval()
    for index, layer in enumerate(model.model.layers):
        first = model.model.layers[index - index % shape.repeat]
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(layer.self_attn, name, getattr(first.self_attn, name))
        layer.mlp, layer.input_layernorm = first.mlp, first.input_layernorm
        layer.post_attention_layernorm = first.post_attention_layernorm
    return model.requires_grad_(False)


def stacked(model: LlamaForCausalLM, shape: BlockShape) -> BlockWeights:
    """The weights of its distinct blocks."""
    layers = model.model.layers[:: shape.repeat]
    projections = [[getattr(layer.self_attn, f"{name}_proj").weight for name in "qkvo"] for layer in layers]
    return BlockWeights(
        qkv=torch.stack([torch.cat(each[:3]) for each in projections]),
        o=torch.stack([each[3] for each in projections]),
        gate_up=torch.stack([torch.stack([layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight]) for layer in layers]),
        down=torch.stack([layer.mlp.down_proj.weight for layer in layers]),
        norm1=torch.stack([layer.input_layernorm.weight for layer in layers]),
        norm2=torch.stack([layer.post_attention_layernorm.weight for layer in layers]),
    )


def token_by_token(model: LlamaForCausalLM, shape: BlockShape, tokens: Tensor) -> Tensor:
    """Logits `[T, VOCAB]` after each of `tokens [T]`, by our decode step and a paged cache with pages of four."""
    weights, (cos, sin) = stacked(model, shape), rope_tables(shape, len(tokens))
    pages = torch.arange(-(-len(tokens) // 4), dtype=torch.int32).flip(0)[None]
    k, v = (torch.zeros(shape.passes, pages.numel(), 4, shape.kv_heads, shape.head_dim) for _ in range(2))
    logits = []
    for position, token in enumerate(tokens):
        x = model.model.embed_tokens(token)[None]
        where = torch.tensor([position], dtype=torch.int32)
        x = decode_step(x, weights, shape, k, v, pages, where, cos, sin)
        logits.append(model.lm_head(rms_norm(x, model.model.norm.weight, shape.eps)))
    return torch.cat(logits)
