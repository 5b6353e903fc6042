"""From an `Open` order to a desk with a model behind it."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from predawn.kernels.engine.desk import Desk
from predawn.kernels.engine.errors import CheckpointError
from predawn.kernels.engine.prompts import Prompter
from predawn.kernels.engine.protocol import Open, Ready
from predawn.kernels.engine.worker import LoadError, Tell

if TYPE_CHECKING:
    import torch

    from predawn.kernels.engine.config import ModelConfig
    from predawn.kernels.engine.engine import Engine
    from predawn.kernels.engine.model import Model
    from predawn.kernels.engine.weights import Progress

BUNDLED: Final = "predawn-tiny"
INSTALL: Final = "pip install 'predawn[kernels]'"
MOST_KV_BYTES: Final = 512 << 20
"""Memory for keys and values where nothing else was asked for."""
REQUEST_OVERHEAD: Final = 1 << 20
"""Bytes of a request that may be something else than its prompt: schemas, members nobody reads."""
TELL_EVERY_S: Final = 5.0
JSON_GROWTH: Final = 6
"""A character may be written as `\\u0000`."""


def load_engine(order: Open, tell: Tell) -> tuple[Desk, Ready]:
    """Load what the order names. Raises `LoadError`."""
    began = time.monotonic()
    try:
        import torch

        torch.set_num_threads(order.threads or default_threads())
        path = Path(order.path).expanduser() if order.path is not None else bundled()
        name = BUNDLED if order.path is None else path.stem
        tell(f"loading {name} from {path}")
        desk, ready = _load(order, path, name, Reading(name, tell))
    except ModuleNotFoundError as exc:
        raise LoadError(f"{exc.name} is not installed: {INSTALL}") from exc
    except (CheckpointError, OSError, ValueError, RuntimeError, MemoryError) as exc:
        raise LoadError(str(exc) or type(exc).__name__) from exc
    return desk, msgspec.structs.replace(ready, load_s=time.monotonic() - began)


def bundled() -> Path:
    """The folder of the model that comes with the package. Raises `LoadError` where it was left out."""
    folder = Path(__file__).parents[1] / "tiny" / "weights"
    if not (folder / "config.json").is_file():
        raise LoadError(f"the bundled model {BUNDLED} is not part of this installation: {folder} is missing")
    return folder


class Reading:
    """Tells now and then how far the weights of a large model have been read."""

    def __init__(self, name: str, tell: Tell, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._tell = tell
        self._clock = clock
        self._told_at = clock()

    def __call__(self, done: int, total: int) -> None:
        """So many bytes have been read."""
        now = self._clock()
        if now - self._told_at >= TELL_EVERY_S and done < total:
            self._told_at = now
            self._tell(f"loading {self._name}: {done / 1e9:.1f} of {total / 1e9:.1f} GB")


def _load(order: Open, path: Path, name: str, progress: Progress) -> tuple[Desk, Ready]:
    from predawn.kernels.engine import checkpoint
    from predawn.kernels.engine.chat import TemplateError
    from predawn.kernels.engine.engine import Engine
    from predawn.kernels.engine.model import Model

    device = _device(order.device)
    if order.most_width > 1 and device != "cpu":
        raise ValueError("width is an experiment for CPUs: the fused kernel lets nobody in between its passes")
    loaded = checkpoint.load(path, dtype=_dtype(order.dtype), device=device, progress=progress)
    config = replace(loaded.config, max_positions=_context(order, loaded.config))
    model = Model(config, loaded.weights, device)
    tokenizer = loaded.tokenizer
    engine = Engine(
        model,
        pages=_pages(order, config, model.dtype.itemsize),
        max_batch=order.max_batch,
        max_waiting=order.max_waiting,
        prefill_chunk=order.prefill_chunk,
        most_width=order.most_width,
        eos_ids=tokenizer.eos_ids,
    )
    prompter = Prompter(
        tokenizer,
        loaded.chat,
        vocabulary=config.vocab,
        context=engine.max_context,
        template_errors=(TemplateError,),
    )
    capacity = order.max_batch + order.max_waiting
    desk = Desk(engine, prompter, tokenizer, capacity=capacity, lookup=order.lookup)
    largest_body = engine.max_context * tokenizer.longest_token * JSON_GROWTH + REQUEST_OVERHEAD
    return desk, _ready(name, model, engine, order.max_batch, largest_body)


def _ready(name: str, model: Model, engine: Engine, max_batch: int, largest_body: int) -> Ready:
    kind = str(model.dtype).removeprefix("torch.")
    parts = (name, kind, str(model.device), model.arithmetic, repr(model.config))
    return Ready(
        model=name,
        device=str(model.device),
        dtype=kind,
        execution=model.arithmetic,
        context=engine.max_context,
        pages=engine.stats().pages,
        max_batch=max_batch,
        largest_body=largest_body,
        fingerprint="fp_" + hashlib.sha256("|".join(parts).encode()).hexdigest()[:10],
        load_s=0.0,
    )


def _context(order: Open, config: ModelConfig) -> int:
    if order.context is not None and order.context > config.max_positions:
        raise ValueError(f"context is {order.context}, but the model was made for {config.max_positions} tokens")
    return order.context or config.max_positions


def _pages(order: Open, config: ModelConfig, item_bytes: int) -> int:
    """KV pages for the memory that was asked for; else for a full batch of full contexts, within reason."""
    from predawn.kernels.engine.kv import PAGE
    from predawn.kernels.engine.pages import pages_for

    shape = config.shape
    page_bytes = 2 * shape.passes * PAGE * shape.kv_heads * shape.head_dim * item_bytes
    whole = pages_for(config.max_positions)
    if order.kv_memory_mb is not None:
        pages = int(order.kv_memory_mb * (1 << 20)) // page_bytes
        if pages < 2:
            raise ValueError(f"kv_memory_mb is too small: one page of {PAGE} tokens takes {page_bytes / (1 << 20):.2f}")
        return pages
    return max(whole, min(whole * order.max_batch, MOST_KV_BYTES // page_bytes))


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, but torch finds no GPU here")
    return name


def _dtype(name: str | None) -> torch.dtype | None:
    import torch

    return (
        None if name is None else {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]
    )


def default_threads() -> int:
    """Half of the cores: decoding waits for memory, and the proxy and its clients need the others."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores // 2))
