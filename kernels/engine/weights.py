"""All weights of a model, stacked for the kernels, and how they are gathered from a file of single tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from predawn.kernels.engine.config import ModelConfig
from predawn.kernels.engine.errors import CheckpointError
from predawn.kernels.shape import BlockWeights

Progress = Callable[[int, int], None]
"""Called with the bytes that are loaded and those that there are in all."""


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """Embedding, blocks, last norm and output projection, all of one dtype on one device."""

    embedding: Tensor
    """`[vocab, dim]`"""
    blocks: BlockWeights
    norm: Tensor
    """`[dim]`, before the output projection"""
    head: Tensor
    """`[vocab, dim]`; the embedding itself where both are tied"""


class Source(Protocol):
    """A file of named tensors, or several."""

    path: Path

    def names(self) -> frozenset[str]: ...

    def file_of(self, name: str, /) -> Path:
        """Where the tensor lies, for messages."""
        ...

    def shape(self, name: str, /) -> tuple[int, ...]:
        """As its header says, without reading the tensor."""
        ...

    def read(self, name: str, /) -> Tensor:
        """The tensor in its stored dtype, queries and keys in half-split order."""
        ...


@dataclass(frozen=True, slots=True)
class Naming:
    """How a format calls the tensors of a Llama."""

    embedding: str
    norm: str
    head: str
    block: Callable[[int], Mapping[str, str]]
    """From q, k, v, o, gate, up, down, norm1, norm2 to the names in a layer."""
    ignored: Callable[[str], bool]
    """Tensors that may be there and are not needed."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the tensor of this name goes."""

    name: str
    into: Tensor
    layer: int | None = None
    """Of which block; None outside of them."""


def gather(
    source: Source, naming: Naming, config: ModelConfig, dtype: torch.dtype, progress: Progress | None = None
) -> ModelWeights:
    """Read and stack all tensors; names and shapes are checked before anything is allocated or read."""
    expected = _expected(naming, config)
    _check(source, naming, expected)
    try:
        weights = _empty(config, dtype)
    except (RuntimeError, MemoryError):
        elements = sum(math.prod(shape) for shape in expected.values())
        raise CheckpointError(
            source.path,
            f"needs {elements * dtype.itemsize / 1e9:.1f} GB of memory as {dtype}",
            fix="use a smaller model",
        ) from None
    total = sum(place.into.nbytes for place in places(naming, config, weights))
    done = 0
    for place in places(naming, config, weights):
        if progress is not None:
            progress(done, total)
        place.into.copy_(_plain(source, place.name))
        done += place.into.nbytes
    if progress is not None:
        progress(total, total)
    return weights


def _plain(source: Source, name: str) -> Tensor:
    """The tensor, if its numbers are what they seem: integers and eight-bit floats need scales that lie elsewhere."""
    found = source.read(name)
    if not found.is_floating_point() or found.itemsize < 2:
        raise CheckpointError(
            source.file_of(name),
            f"holds {found.dtype}: quantised weights in this layout are not supported",
            tensor=name,
            fix="use a GGUF file or the unquantised model",
        )
    return found


def _expected(naming: Naming, config: ModelConfig) -> dict[str, tuple[int, ...]]:
    s = config.shape
    found = {naming.embedding: (config.vocab, s.dim), naming.norm: (s.dim,)}
    if not config.tied:
        found[naming.head] = (config.vocab, s.dim)
    kv_width = s.kv_heads * s.head_dim
    sizes = {
        "q": (s.attention_width, s.dim),
        "k": (kv_width, s.dim),
        "v": (kv_width, s.dim),
        "o": (s.dim, s.attention_width),
        "gate": (s.ffn, s.dim),
        "up": (s.ffn, s.dim),
        "down": (s.dim, s.ffn),
        "norm1": (s.dim,),
        "norm2": (s.dim,),
    }
    for layer in range(s.layers):
        found.update({theirs: sizes[ours] for ours, theirs in naming.block(layer).items()})
    return found


def _check(source: Source, naming: Naming, expected: Mapping[str, tuple[int, ...]]) -> None:
    names = source.names()
    for name, shape in expected.items():
        if name not in names:
            raise CheckpointError(
                source.path, "is missing", tensor=name, fix="fetch the checkpoint again; does its config belong to it?"
            )
        if (found := source.shape(name)) != shape:
            raise CheckpointError(
                source.file_of(name),
                f"has shape {list(found)}, but the config asks for {list(shape)}",
                tensor=name,
                fix="use the config that belongs to these weights",
            )
    for name in sorted(names - expected.keys()):
        if not naming.ignored(name) and name != naming.head:
            raise CheckpointError(
                source.file_of(name),
                "is no tensor of this architecture",
                tensor=name,
                fix="this engine runs plain Llama blocks without biases or adapters",
            )


def _empty(config: ModelConfig, dtype: torch.dtype) -> ModelWeights:
    s = config.shape

    def empty(*size: int) -> Tensor:
        return torch.empty(size, dtype=dtype)

    embedding = empty(config.vocab, s.dim)
    blocks = BlockWeights(
        qkv=empty(s.layers, s.qkv_rows, s.dim),
        o=empty(s.layers, s.dim, s.attention_width),
        gate_up=empty(s.layers, 2, s.ffn, s.dim),
        down=empty(s.layers, s.dim, s.ffn),
        norm1=empty(s.layers, s.dim),
        norm2=empty(s.layers, s.dim),
    )
    return ModelWeights(embedding, blocks, empty(s.dim), embedding if config.tied else empty(config.vocab, s.dim))


def places(naming: Naming, config: ModelConfig, weights: ModelWeights) -> Iterator[Place]:
    """The stacked weights as a file's single tensors, each a view."""
    s, b = config.shape, weights.blocks
    yield Place(naming.embedding, weights.embedding)
    yield Place(naming.norm, weights.norm)
    if not config.tied:
        yield Place(naming.head, weights.head)
    kv_width = s.kv_heads * s.head_dim
    for layer in range(s.layers):
        q, k, v = b.qkv[layer].split([s.attention_width, kv_width, kv_width])
        gate, up = b.gate_up[layer]
        into = {"q": q, "k": k, "v": v, "o": b.o[layer], "gate": gate, "up": up, "down": b.down[layer]}
        into |= {"norm1": b.norm1[layer], "norm2": b.norm2[layer]}
        for ours, theirs in naming.block(layer).items():
            yield Place(theirs, into[ours], layer)
