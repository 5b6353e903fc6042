"""Write a model of shared blocks as a plain Llama that other servers run.

`python -m predawn.kernels.engine.untie SRC DST`. A block that runs R times becomes R layers with the same weights. The
answers are the same; what is lost is that the second pass finds its weights in the cache.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from predawn.kernels.engine import hf
from predawn.kernels.engine.config import ModelConfig
from predawn.kernels.engine.errors import CheckpointError
from predawn.kernels.engine.weights import ModelWeights, gather, places

_COPIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
)


def untie(source: Path, target: Path) -> int:
    """Write `target`, which must not exist yet, and return its number of layers. Raises `CheckpointError`."""
    if target.exists():
        raise CheckpointError(target, "exists already", fix="name a new folder")
    config = hf.read_config(source)
    weights = gather(hf.open_weights(source), hf.NAMING, config, config.dtype)
    target.mkdir(parents=True)
    save_file(dict(_tensors(config, weights)), target / "model.safetensors", metadata={"format": "pt"})
    plain = _plain_config(config, hf.read_json(source / "config.json"))
    (target / "config.json").write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
    for name in _COPIED:
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)
    return config.shape.passes


def _tensors(config: ModelConfig, weights: ModelWeights) -> Iterator[tuple[str, Tensor]]:
    repeat = config.shape.repeat
    for place in places(hf.NAMING, config, weights):
        if place.layer is None:
            yield place.name, place.into.contiguous()
            continue
        stored = dict(hf.NAMING.block(place.layer))
        kind = next(ours for ours, theirs in stored.items() if theirs == place.name)
        for layer in range(place.layer * repeat, (place.layer + 1) * repeat):
            yield hf.NAMING.block(layer)[kind], place.into.clone()


def _plain_config(config: ModelConfig, found: dict[str, Any]) -> dict[str, Any]:
    """The source's keys, less those of sharing, as a Llama's."""
    ours = ("layer_sharing", "share_repeat", "share_embedding", "auto_map")
    return {
        **{key: value for key, value in found.items() if key not in ours},
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": config.shape.passes,
        "num_key_value_heads": config.shape.kv_heads,
        "head_dim": config.shape.head_dim,
        "rms_norm_eps": config.shape.eps,
        "tie_word_embeddings": config.tied,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m predawn.kernels.engine.untie", description=__doc__)
    parser.add_argument("source", type=Path, help="folder of a model with shared blocks")
    parser.add_argument("target", type=Path, help="folder to write; must not exist")
    options = parser.parse_args(arguments)
    try:
        layers = untie(options.source, options.target)
    except CheckpointError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    sys.stdout.write(f"wrote {options.target}: {layers} layers\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
