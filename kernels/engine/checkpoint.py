"""Loading a model from disk, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from predawn.kernels.engine import chat, hf, tokens
from predawn.kernels.engine.chat import ChatTemplate
from predawn.kernels.engine.config import ModelConfig
from predawn.kernels.engine.errors import CheckpointError
from predawn.kernels.engine.tokens import Tokenizer
from predawn.kernels.engine.weights import ModelWeights, Progress, gather

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model with everything that is needed to talk to it."""

    config: ModelConfig
    weights: ModelWeights
    tokenizer: Tokenizer
    chat: ChatTemplate | None


def load(
    path: Path | str,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Checkpoint:
    """Load a folder in the layout of Hugging Face, or a GGUF file. Raises `CheckpointError`.

    Without `dtype` weights keep the one they are stored in, if `device` multiplies it: a CPU gets float32 for float16,
    for bfloat16 unless it has instructions for that, and for what is dequantised. The weights stay in main memory;
    `Model` moves them to `device`.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(path, "is missing", fix="name a folder with a model, or a .gguf file")
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(map(str, DTYPES))}, not {dtype}")
    on_cpu = torch.device(device).type == "cpu"
    if path.is_file():
        from predawn.kernels.engine import gguf_file

        return Checkpoint(*gguf_file.load(path, dtype or (torch.float32 if on_cpu else torch.float16), progress))
    config = hf.read_config(path)
    tokenizer, about = tokens.read(path, vocab=config.vocab, eos_ids=config.eos_ids, bos_id=config.bos_id)
    template = chat.read(path, about, tokenizer)
    kept = not on_cpu or (config.dtype == torch.bfloat16 and _multiplies_bfloat16())
    dtype = dtype or (config.dtype if kept else torch.float32)
    weights = gather(hf.open_weights(path), hf.NAMING, config, dtype, progress)
    return Checkpoint(config, weights, tokenizer, template)


def _multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for it; emulated, it is slower than float32."""
    asked = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    return any(ask is not None and ask() for ask in asked)
