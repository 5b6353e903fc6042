"""The model to plan for: the shape in a checkpoint's config.json. Weights are not read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from predawn.kernels.known_shapes import ModelShape, ShapeError, checked
from predawn.kernels.shape import BlockShape


def read_config(folder: Path) -> ModelShape:
    """The shape of a Llama-family checkpoint in Hugging Face layout, MobileLLM's sharing among its keys.

    Raises `ShapeError` naming the file and what is wrong with it.
    """
    path = folder / "config.json"
    config = _read(folder, path)
    dim = _whole(path, config, "hidden_size")
    heads = _whole(path, config, "num_attention_heads")
    shared = config.get("layer_sharing")  # as `engine.hf` reads it
    shape = BlockShape(
        dim=dim,
        heads=heads,
        kv_heads=_whole(path, config, "num_key_value_heads", heads),
        head_dim=_whole(path, config, "head_dim", dim // heads if heads else 0),
        ffn=_whole(path, config, "intermediate_size"),
        layers=_whole(path, config, "num_hidden_layers"),
        repeat=1 if shared is False else _whole(path, config, "share_repeat", 2 if shared else 1),
    )
    vocabulary = _whole(path, config, "vocab_size")
    try:
        return ModelShape(folder.resolve().name, checked(shape), vocabulary)
    except ShapeError as exc:
        raise ShapeError(f"{path}: {exc}") from None


def _read(folder: Path, path: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise ShapeError(f"{folder}: no such folder; --model wants one with a config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ShapeError(f"{folder}: there is no config.json in it; give --shape instead") from None
    except OSError as exc:
        raise ShapeError(f"{path}: {exc.strerror}") from None
    except ValueError as exc:
        raise ShapeError(f"{path}: this is not JSON: {exc}") from None
    if not isinstance(config, dict):
        raise ShapeError(f"{path}: an object is expected, not {type(config).__name__}")
    return config


def _whole(path: Path, config: dict[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key)
    if value is None:
        value = default
    if value is None:
        raise ShapeError(f"{path}: {key} is missing; only checkpoints of the Llama family can be planned for")
    if not isinstance(value, int) or isinstance(value, bool):
        raise ShapeError(f"{path}: {key} must be a whole number, not {value!r}")
    return value
