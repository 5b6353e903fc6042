"""Writes a trained network as a checkpoint in the layout of Hugging Face, with its tokenizer and template."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from predawn.kernels.tiny import tokenizer
from predawn.kernels.tiny.train import POSITIONS, SHAPE, Recipe, Run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

BUNDLED = Path(__file__).parent / "weights"
"""Where the model that comes with Predawn lies."""

_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_NORMS = ("input_layernorm", "post_attention_layernorm")


def write(trained: Mapping[str, Tensor], folder: Path) -> None:
    """Write `trained`, the state of a `Network`, to `folder`; bf16, in which its matrices were multiplied all along."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {_published(name): tensor.to(torch.bfloat16).contiguous() for name, tensor in sorted(trained.items())}
    weights = folder / "model.safetensors"
    save_file(tensors, weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # the library makes it private
    encode = tokenizer.build()
    encode.save(str(folder / "tokenizer.json"))
    ids = {text: number for text, number in encode.get_vocab().items() if text in tokenizer.SPECIAL}
    _write_json(folder / "config.json", _config(encode.get_vocab_size(), ids))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "bos_token": tokenizer.BEGIN,
            "eos_token": tokenizer.END,
            "model_max_length": POSITIONS,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )
    (folder / "chat_template.jinja").write_text(tokenizer.CHAT_TEMPLATE)


def _published(name: str) -> str:
    """A parameter's name in published Llama checkpoints."""
    if name == "embed":
        return "model.embed_tokens.weight"
    if name == "norm":
        return "model.norm.weight"
    _, number, part = name.split(".")
    group = "self_attn." if part in _ATTENTION else "" if part in _NORMS else "mlp."
    return f"model.layers.{number}.{group}{part}.weight"


def _config(vocabulary: int, ids: Mapping[str, int]) -> dict[str, Any]:
    return {
        "architectures": ["MobileLLMForCausalLM"],
        "model_type": "mobilellm",
        "vocab_size": vocabulary,
        "hidden_size": SHAPE.dim,
        "intermediate_size": SHAPE.ffn,
        "num_hidden_layers": SHAPE.layers,
        "layer_sharing": True,
        "share_repeat": SHAPE.repeat,
        "num_attention_heads": SHAPE.heads,
        "num_key_value_heads": SHAPE.kv_heads,
        "head_dim": SHAPE.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": SHAPE.eps,
        "rope_theta": SHAPE.rope_theta,
        "max_position_embeddings": POSITIONS,
        "tie_word_embeddings": True,
        "share_embedding": True,
        "bos_token_id": ids[tokenizer.BEGIN],
        "eos_token_id": ids[tokenizer.END],
        "torch_dtype": "bfloat16",
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def main(arguments: list[str] | None = None) -> int:
    """Export a run's folder."""
    parser = argparse.ArgumentParser(prog="python -m predawn.kernels.tiny.export", description=__doc__)
    parser.add_argument("run", type=Path, nargs="?", default=Path("results/tiny"), help="the folder of a training run")
    parser.add_argument("folder", type=Path, nargs="?", default=BUNDLED, help="where to (default: the bundled model)")
    options = parser.parse_args(arguments)
    state = torch.load(options.run / "run.pt", weights_only=True)
    run = Run(replace(Recipe(), **state["recipe"]), options.run)
    run.restore()
    write(run.network.state_dict(), options.folder)
    print(f"step {run.step} written to {options.folder}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
