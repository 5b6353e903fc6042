"""Checkpoints as Hugging Face lays them out: a folder with `config.json` and weights in one file or several."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from predawn.kernels.engine.config import MOST_LAYERS, MOST_POSITIONS, MOST_REPEATS, ModelConfig
from predawn.kernels.engine.errors import CheckpointError
from predawn.kernels.engine.keys import Keys
from predawn.kernels.engine.rope import Llama3Scaling
from predawn.kernels.engine.weights import Naming, Source
from predawn.kernels.shape import BlockShape

MODEL_TYPES = ("llama", "mobilellm")
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a checkpoint."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(path, "is missing", fix="copy the whole folder of the model") from None
    except (ValueError, RecursionError) as exc:
        raise CheckpointError(path, f"is not JSON ({exc})", fix="fetch it again") from None
    if not isinstance(found, dict):
        raise CheckpointError(path, "is not a JSON object", fix="fetch it again")
    return found


def read_config(folder: Path) -> ModelConfig:
    """What `config.json` and `generation_config.json` say; anything this engine would compute wrongly is refused."""
    path = folder / "config.json"
    keys = Keys(path, read_json(path))
    _refuse_unsupported(keys)
    heads = keys.count("num_attention_heads")
    kv_heads = keys.count("num_key_value_heads", heads)
    dim = keys.count("hidden_size")
    if heads % kv_heads:
        words = f"{heads} heads cannot share {kv_heads} key-value heads"
        raise CheckpointError(path, words, tensor="num_key_value_heads")
    if "head_dim" not in keys and dim % heads:
        raise CheckpointError(path, f"{dim} is no multiple of {heads} heads", tensor="hidden_size", fix="give head_dim")
    head_dim = keys.count("head_dim", dim // heads)
    if head_dim % 2:
        raise CheckpointError(path, f"{head_dim} is odd: rotary pairs need an even number", tensor="head_dim")
    theta, scaling = _rope(keys)
    shape = BlockShape(
        dim=dim,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn=keys.count("intermediate_size"),
        layers=keys.count("num_hidden_layers", most=MOST_LAYERS),
        repeat=_repeat(keys),
        eps=keys.number("rms_norm_eps", 1e-6),
        rope_theta=theta,
    )
    return ModelConfig(
        shape=shape,
        vocab=keys.count("vocab_size"),
        max_positions=keys.count("max_position_embeddings", 2048, MOST_POSITIONS),
        tied=keys.flag("tie_word_embeddings") or keys.flag("share_embedding"),
        dtype=_DTYPES.get(str(keys.get("dtype", keys.get("torch_dtype"))).removeprefix("torch."), torch.float32),
        rope_scaling=scaling,
        eos_ids=_eos_ids(folder, keys),
        name=str(keys.get("_name_or_path") or folder.resolve().name),
    )


def _refuse_unsupported(keys: Keys) -> None:
    def refuse(key: str, what: str) -> None:
        raise CheckpointError(
            keys.path,
            what,
            tensor=key,
            fix="use a Llama or MobileLLM checkpoint, or serve this one with another engine",
        )

    kind = keys.get("model_type")
    if kind not in MODEL_TYPES:
        refuse("model_type", f"{kind!r:.60} is none of {', '.join(MODEL_TYPES)}")
    for key in ("attention_bias", "mlp_bias"):
        if keys.flag(key):
            refuse(key, "biases are not supported")
    if (act := keys.get("hidden_act", "silu")) not in ("silu", "swish"):
        refuse("hidden_act", f"{act!r:.60} is not supported, only silu")
    if "quantization_config" in keys:
        refuse("quantization_config", "quantised weights in this layout are not supported; a GGUF file is")
    if keys.get("partial_rotary_factor", 1.0) != 1.0:
        refuse("partial_rotary_factor", "rotating a part of each head is not supported")
    if "sliding_window" in keys:
        refuse("sliding_window", "attention within a window is not supported")


def _repeat(keys: Keys) -> int:
    """How often each block runs: `share_repeat` is our key; MobileLLM's `layer_sharing` is twice, and once if false."""
    if "layer_sharing" in keys and not keys.flag("layer_sharing"):
        return 1
    return keys.count("share_repeat", 2 if "layer_sharing" in keys else 1, MOST_REPEATS)


def _rope(keys: Keys) -> tuple[float, Llama3Scaling | None]:
    """Base and scaling; transformers 5 writes both into `rope_parameters`, older versions into two keys."""
    found = keys.get("rope_parameters", keys.get("rope_scaling", {}))
    if not isinstance(found, dict):
        raise CheckpointError(keys.path, f"must be an object, not {found!r:.60}", tensor="rope_scaling")
    inner = Keys(keys.path, found)
    theta = inner.number("rope_theta", keys.number("rope_theta", 10_000.0))
    kind = inner.get("rope_type", inner.get("type", "default"))
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise CheckpointError(
            keys.path,
            f"{kind!r:.60} is not supported, only llama3",
            tensor="rope_scaling",
            fix="use another checkpoint",
        )
    scaling = Llama3Scaling(
        factor=inner.number("factor", 8.0),
        low_freq_factor=inner.number("low_freq_factor", 1.0),
        high_freq_factor=inner.number("high_freq_factor", 4.0),
        original_positions=inner.count("original_max_position_embeddings", 8192),
    )
    if scaling.high_freq_factor <= scaling.low_freq_factor:
        raise CheckpointError(keys.path, "high_freq_factor must exceed low_freq_factor", tensor="rope_scaling")
    return theta, scaling


def _eos_ids(folder: Path, keys: Keys) -> tuple[int, ...]:
    generation = folder / "generation_config.json"
    found = read_json(generation).get("eos_token_id") if generation.exists() else None
    if found is None:
        found = keys.get("eos_token_id")
    listed = found if isinstance(found, list) else [] if found is None else [found]
    if not all(isinstance(one, int) and one >= 0 for one in listed):
        raise CheckpointError(keys.path, f"must be token ids, not {found!r:.60}", tensor="eos_token_id")
    return tuple(listed)


def open_weights(folder: Path) -> Source:
    """The tensors of the folder, by name, from safetensors if there are any, else from a pickle of plain tensors."""
    for name, opened in (("model.safetensors", _open_safetensors), ("pytorch_model.bin", _open_pickle)):
        single, index = folder / name, folder / f"{name}.index.json"
        if single.exists():
            return opened(single)
        if index.exists():
            return _Sharded(index, [opened(path) for path in _shards(index)])
    raise CheckpointError(
        folder,
        "has no model.safetensors, model.safetensors.index.json or pytorch_model.bin",
        fix="name the folder of a model in the layout of Hugging Face, or a .gguf file",
    )


def _shards(index: Path) -> list[Path]:
    """The files an index names; they must lie beside it."""
    named = read_json(index).get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
        raise CheckpointError(index, "has no weight_map from tensors to files", fix="fetch it again")
    paths = []
    for name in sorted(set(named.values())):
        if Path(name).name != name or name in (".", ".."):
            raise CheckpointError(index, f"names {name!r:.80}, which is not a file beside it", fix="do not use it")
        if not (index.parent / name).is_file():
            raise CheckpointError(index.parent / name, "is missing", fix=f"fetch it: {index.name} names it")
        paths.append(index.parent / name)
    return paths


class _Safetensors:
    """One mapped file: only what is asked for is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = safe_open(path, framework="pt")
            self._names = frozenset(self._file.keys())
        except (SafetensorError, OSError) as exc:
            raise CheckpointError(path, f"is not a complete safetensors file ({exc})", fix="fetch it again") from None

    def names(self) -> frozenset[str]:
        return self._names

    def file_of(self, _name: str) -> Path:
        return self.path

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._file.get_slice(name).get_shape())

    def read(self, name: str) -> Tensor:
        try:
            found: Tensor = self._file.get_tensor(name)
        except (SafetensorError, OSError, RuntimeError) as exc:
            raise CheckpointError(self.path, f"cannot be read ({exc})", tensor=name, fix="fetch it again") from None
        return found


def _open_safetensors(path: Path) -> Source:
    return _Safetensors(path)


class _Pickle:
    """Tensors from `torch.save`, loaded without running any code that the file may hold."""

    def __init__(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        self.path = path
        self._tensors = tensors

    def names(self) -> frozenset[str]:
        return frozenset(self._tensors)

    def file_of(self, _name: str) -> Path:
        return self.path

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def read(self, name: str) -> Tensor:
        return self._tensors[name]


def _open_pickle(path: Path) -> Source:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError:
        raise CheckpointError(
            path,
            "holds more than tensors, perhaps code; it was not run",
            fix="use a safetensors file of the same model",
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as exc:
        words = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        raise CheckpointError(path, f"is not a complete checkpoint ({words:.200})", fix="fetch it again") from None
    if not isinstance(found, dict) or not all(isinstance(one, Tensor) for one in found.values()):
        raise CheckpointError(path, "is not a plain state dict of tensors", fix="use a safetensors file")
    return _Pickle(path, found)


class _Sharded:
    """Several files as one."""

    def __init__(self, index: Path, parts: list[Source]) -> None:
        self.path = index
        self._at = {name: part for part in parts for name in part.names()}

    def names(self) -> frozenset[str]:
        return frozenset(self._at)

    def file_of(self, name: str) -> Path:
        return self._at[name].file_of(name)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._at[name].shape(name)

    def read(self, name: str) -> Tensor:
        return self._at[name].read(name)


_BLOCK = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
    "norm1": "input_layernorm",
    "norm2": "post_attention_layernorm",
}
NAMING = Naming(
    embedding="model.embed_tokens.weight",
    norm="model.norm.weight",
    head="lm_head.weight",
    block=lambda layer: {ours: f"model.layers.{layer}.{theirs}.weight" for ours, theirs in _BLOCK.items()},
    ignored=lambda name: name.endswith(".rotary_emb.inv_freq"),
)
