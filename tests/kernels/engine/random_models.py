"""Random tiny models, in memory and on disk, and what transformers makes of them."""

import dataclasses
import json

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from predawn.kernels.engine.config import ModelConfig
from predawn.kernels.engine.kv import PAGE
from predawn.kernels.engine.model import Model
from predawn.kernels.engine.weights import ModelWeights
from predawn.kernels.shape import BlockShape, BlockWeights

LLAMA = BlockShape(dim=64, heads=4, kv_heads=2, head_dim=16, ffn=96, layers=3, repeat=1)
SHARED = dataclasses.replace(LLAMA, layers=2, repeat=2)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCAB = 256 + len(SPECIAL)
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def config_of(shape, *, vocab=VOCAB, max_positions=256, tied=True, dtype=torch.float32, **more):
    return ModelConfig(shape=shape, vocab=vocab, max_positions=max_positions, tied=tied, dtype=dtype, **more)


def weights_of(config, seed=0):
    """Large enough that a softmax is neither flat nor a single token."""
    s, made = config.shape, torch.Generator().manual_seed(seed)

    def normal(*size, scale):
        return (torch.randn(*size, generator=made) * scale).to(config.dtype)

    blocks = BlockWeights(
        qkv=normal(s.layers, s.qkv_rows, s.dim, scale=s.dim**-0.5),
        o=normal(s.layers, s.dim, s.attention_width, scale=s.attention_width**-0.5),
        gate_up=normal(s.layers, 2, s.ffn, s.dim, scale=s.dim**-0.5),
        down=normal(s.layers, s.dim, s.ffn, scale=s.ffn**-0.5),
        norm1=1 + normal(s.layers, s.dim, scale=0.1),
        norm2=1 + normal(s.layers, s.dim, scale=0.1),
    )
    embedding = normal(config.vocab, s.dim, scale=0.5)
    head = embedding if config.tied else normal(config.vocab, s.dim, scale=0.5)
    return ModelWeights(embedding, blocks, 1 + normal(s.dim, scale=0.1), head)


def random_model(shape=SHARED, *, seed=0, device="cpu", **config):
    """A `Model` of random weights, without a tokenizer."""
    made = config_of(shape, **config)
    return Model(made, weights_of(made, seed), device)


def pages_for(length, first=0):
    """Enough consecutive pages for a sequence of `length` positions."""
    return torch.arange(first, first + -(-length // PAGE), dtype=torch.int32)


def tensors_of(config, weights, *, stride=1):
    """The tensors of a checkpoint, under the names that Hugging Face's files have; layers count in steps of `stride`."""
    s, b = config.shape, weights.blocks
    found = {"model.embed_tokens.weight": weights.embedding, "model.norm.weight": weights.norm}
    if not config.tied:
        found["lm_head.weight"] = weights.head
    sizes = [s.attention_width, s.kv_heads * s.head_dim, s.kv_heads * s.head_dim]
    for index in range(s.layers):
        q, k, v = b.qkv[index].split(sizes)
        for name, tensor in {
            "self_attn.q_proj": q,
            "self_attn.k_proj": k,
            "self_attn.v_proj": v,
            "self_attn.o_proj": b.o[index],
            "mlp.gate_proj": b.gate_up[index, 0],
            "mlp.up_proj": b.gate_up[index, 1],
            "mlp.down_proj": b.down[index],
            "input_layernorm": b.norm1[index],
            "post_attention_layernorm": b.norm2[index],
        }.items():
            found[f"model.layers.{index * stride}.{name}.weight"] = tensor.contiguous().clone()
    return found


def config_json(config):
    """`config.json`: Llama's, or MobileLLM's where blocks are shared."""
    s = config.shape
    found = {
        "architectures": ["LlamaForCausalLM" if s.repeat == 1 else "MobileLLMForCausalLM"],
        "model_type": "llama" if s.repeat == 1 else "mobilellm",
        "hidden_size": s.dim,
        "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads,
        "head_dim": s.head_dim,
        "intermediate_size": s.ffn,
        "num_hidden_layers": s.layers,
        "rms_norm_eps": s.eps,
        "rope_theta": s.rope_theta,
        "vocab_size": config.vocab,
        "max_position_embeddings": config.max_positions,
        "tie_word_embeddings": config.tied,
        "hidden_act": "silu",
        "torch_dtype": str(config.dtype).removeprefix("torch."),
        "eos_token_id": VOCAB - 1,
    }
    if s.repeat > 1:
        found |= {"layer_sharing": True, "share_repeat": s.repeat, "share_embedding": config.tied}
    return found


def tokenizer_of(words=()):
    """A byte-level BPE of 256 bytes, `words` as merges of their letters, and ChatML's special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {symbol: index for index, symbol in enumerate(alphabet)}
    merges = []
    for word in words:
        made = word[0]
        for letter in word[1:]:
            merges.append((made, letter))
            made += letter
            vocab.setdefault(made, len(vocab))
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def write_checkpoint(folder, shape=SHARED, *, seed=0, **config):
    """A checkpoint on disk, as Hugging Face lays it out; returns what it holds."""
    made = config_of(shape, **config)
    weights = weights_of(made, seed)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors_of(made, weights), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config_json(made)))
    tokenizer_of().save(str(folder / "tokenizer.json"))
    about = {"eos_token": "<|im_end|>", "bos_token": "<|endoftext|>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return made, weights
