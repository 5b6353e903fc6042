"""Models of the Llama family in a GGUF file, whatever its quantisation."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf.quants import dequantize
from torch import Tensor

from predawn.kernels.engine import gguf_tokens
from predawn.kernels.engine.chat import ChatTemplate
from predawn.kernels.engine.config import MOST_LAYERS, MOST_POSITIONS, ModelConfig
from predawn.kernels.engine.errors import CheckpointError
from predawn.kernels.engine.gguf_header import GgufHeader, read_header
from predawn.kernels.engine.keys import Keys
from predawn.kernels.engine.rope import Interleaved
from predawn.kernels.engine.tokens import Tokenizer
from predawn.kernels.engine.weights import ModelWeights, Naming, Progress, gather
from predawn.kernels.shape import BlockShape

_FREQUENCIES = "rope_freqs.weight"
_BLOCK = {
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
    "norm1": "attn_norm",
    "norm2": "ffn_norm",
}
NAMING = Naming(
    embedding="token_embd.weight",
    norm="output_norm.weight",
    head="output.weight",
    block=lambda layer: {ours: f"blk.{layer}.{theirs}.weight" for ours, theirs in _BLOCK.items()},
    ignored=lambda name: name == _FREQUENCIES,
)


def load(
    path: Path, dtype: torch.dtype, progress: Progress | None = None
) -> tuple[ModelConfig, ModelWeights, Tokenizer, ChatTemplate | None]:
    """Everything the file holds, weights dequantised to `dtype`. Raises `CheckpointError`."""
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise CheckpointError(path, "is empty", fix="fetch it again") from None
    with data:
        header = read_header(path, data)
        source = _Tensors(path, data, header)
        config = _config(path, header, source)
        tokenizer = gguf_tokens.tokenizer(path, header.metadata, config.vocab)
        source.head_dim = config.shape.head_dim
        weights = gather(source, NAMING, config, dtype, progress)
    return config, weights, tokenizer, _template(path, header.metadata, tokenizer)


class _Tensors:
    """The tensors of a mapped file, dequantised one at a time."""

    def __init__(self, path: Path, data: mmap.mmap, header: GgufHeader) -> None:
        self.path = path
        self.head_dim = 0
        """To be set before queries or keys are read."""
        self._data = data
        self._tensors = header.tensors

    def names(self) -> frozenset[str]:
        return frozenset(self._tensors)

    def file_of(self, _name: str) -> Path:
        return self.path

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name].shape

    def read(self, name: str) -> Tensor:
        """Rows of queries and keys come with rotary pairs as neighbours in this format; here they part again."""
        one = self._tensors[name]
        raw = np.frombuffer(self._data[one.offset : one.offset + one.size], dtype=np.uint8)
        try:
            found = dequantize(raw.reshape(*one.shape[:-1], -1), one.kind)
        except (NotImplementedError, ValueError) as exc:
            raise CheckpointError(
                self.path, f"{one.kind.name} cannot be dequantised ({exc})", tensor=name, fix="use another quantisation"
            ) from None
        tensor = torch.from_numpy(np.array(found, dtype=np.float32)).view(one.shape)
        if name.endswith((".attn_q.weight", ".attn_k.weight")):
            return Interleaved.restore(tensor, self.head_dim)
        return tensor


def _config(path: Path, header: GgufHeader, source: _Tensors) -> ModelConfig:
    keys = Keys(path, header.metadata, fix="convert it anew")
    _refuse_unsupported(keys)
    heads = keys.count("llama.attention.head_count")
    dim = keys.count("llama.embedding_length")
    head_dim = keys.count("llama.attention.key_length", keys.count("llama.rope.dimension_count", dim // heads))
    if head_dim % 2 or heads % keys.count("llama.attention.head_count_kv", heads):
        words = f"{heads} heads of {head_dim} are not possible"
        raise CheckpointError(path, words, tensor="llama.attention.head_count")
    if keys.count("llama.rope.dimension_count", head_dim) != head_dim:
        words = "rotating a part of each head is not supported"
        raise CheckpointError(path, words, tensor="llama.rope.dimension_count")
    shape = BlockShape(
        dim=dim,
        heads=heads,
        kv_heads=keys.count("llama.attention.head_count_kv", heads),
        head_dim=head_dim,
        ffn=keys.count("llama.feed_forward_length"),
        layers=keys.count("llama.block_count", most=MOST_LAYERS),
        repeat=1,
        eps=keys.number("llama.attention.layer_norm_rms_epsilon", 1e-5),
        rope_theta=keys.number("llama.rope.freq_base", 10_000.0),
    )
    factors = tuple(source.read(_FREQUENCIES).flatten().tolist()) if _FREQUENCIES in header.tensors else ()
    if factors and (len(factors) != head_dim // 2 or min(factors) <= 0):
        words = f"needs {head_dim // 2} positive numbers"
        raise CheckpointError(path, words, tensor=_FREQUENCIES, fix="fetch it again")
    pieces = header.metadata.get("tokenizer.ggml.tokens")
    return ModelConfig(
        shape=shape,
        vocab=keys.count("llama.vocab_size", len(pieces) if isinstance(pieces, list) else None),
        max_positions=keys.count("llama.context_length", most=MOST_POSITIONS),
        tied=NAMING.head not in header.tensors,
        dtype=torch.float32,
        rope_factors=factors,
        name=str(header.metadata.get("general.name") or path.stem),
    )


def _refuse_unsupported(keys: Keys) -> None:
    """Raise `CheckpointError` for what would be computed wrongly."""
    for key, supported, fix in (
        ("general.architecture", ("llama",), "serve it with llama.cpp"),
        ("llama.rope.scaling.type", (None, "none"), "serve it with llama.cpp"),
        ("llama.expert_count", (None, 0), "mixtures of experts are not supported; serve it with llama.cpp"),
        ("split.count", (None, 0, 1), "merge the parts with llama-gguf-split --merge"),
    ):
        if (found := keys.get(key)) not in supported:
            raise CheckpointError(keys.path, f"{found!r:.60} is not supported", tensor=key, fix=fix)


def _template(path: Path, metadata: Mapping[str, Any], tokenizer: Tokenizer) -> ChatTemplate | None:
    source = metadata.get("tokenizer.chat_template")
    if not isinstance(source, str):
        return None
    spelt = {control.id: control.text for control in tokenizer.controls}
    eos = metadata.get("tokenizer.ggml.eos_token_id")
    return ChatTemplate(
        source,
        tokenizer,
        file=path,
        bos_token=spelt.get(tokenizer.bos_id, "") if tokenizer.bos_id is not None else "",
        eos_token=spelt.get(eos, "") if isinstance(eos, int) else "",
    )
