"""What a GGUF file says about itself, read with every size checked against the file before it is believed.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from predawn.kernels.engine.errors import CheckpointError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)
_REFETCH = "fetch it again"


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """Where a tensor lies and how it is stored."""

    shape: tuple[int, ...]
    """Rows first, as torch has it."""
    kind: GGMLQuantizationType
    offset: int
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """Metadata and the table of tensors."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]


def read_header(path: Path, data: mmap.mmap) -> GgufHeader:
    """Raises `CheckpointError`, also if a tensor does not lie within the file."""
    cursor = _Cursor(path, data)
    if cursor.take(4) != b"GGUF":
        raise CheckpointError(path, "is not a GGUF file", fix="name a .gguf file or the folder of a model")
    version = cursor.number("I")
    if version not in _VERSIONS:
        raise CheckpointError(path, f"is GGUF version {version}, not one of {_VERSIONS}", fix="convert the model anew")
    tensors, entries = cursor.count("Q", least=24), cursor.count("Q", least=13)
    metadata = {}
    for _ in range(entries):
        key = cursor.text()
        metadata[key] = cursor.value(cursor.number("I"), key)
    table = {}
    for _ in range(tensors):
        name = cursor.text()
        table[name] = _tensor(cursor, name)
    start = _aligned(cursor.at, metadata.get("general.alignment", 32), path)
    placed = {}
    for name, one in table.items():
        if start + one.offset + one.size > len(data):
            words = "ends beyond the end of the file"
            raise CheckpointError(path, words, tensor=name, fix=f"{_REFETCH}: it is cut off")
        placed[name] = GgufTensor(one.shape, one.kind, start + one.offset, one.size)
    return GgufHeader(metadata, placed)


def _tensor(cursor: _Cursor, name: str) -> GgufTensor:
    dimensions = cursor.number("I")
    if not 1 <= dimensions <= 4:
        raise CheckpointError(cursor.path, f"has {dimensions} dimensions", tensor=name, fix=_REFETCH)
    shape = tuple(reversed([cursor.number("Q") for _ in range(dimensions)]))
    code = cursor.number("I")
    try:
        kind = GGMLQuantizationType(code)
    except ValueError:
        words = f"has the unknown type {code}"
        fix = "use a file of a common quantisation, such as Q8_0"
        raise CheckpointError(cursor.path, words, tensor=name, fix=fix) from None
    block, block_bytes = GGML_QUANT_SIZES[kind]
    if not all(shape) or shape[-1] % block:
        words = f"has shape {list(shape)}, impossible for {kind.name}"
        raise CheckpointError(cursor.path, words, tensor=name, fix=_REFETCH)
    return GgufTensor(shape, kind, cursor.number("Q"), math.prod(shape) // block * block_bytes)


def _aligned(offset: int, alignment: object, path: Path) -> int:
    if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20:
        raise CheckpointError(path, f"is {alignment!r:.60}", tensor="general.alignment", fix=_REFETCH)
    return -(-offset // alignment) * alignment


class _Cursor:
    """Reads one thing after another, never past the end."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.at = 0
        self._data = data

    def take(self, size: int) -> bytes:
        if size > len(self._data) - self.at:
            raise CheckpointError(self.path, "ends in the middle of its header", fix=f"{_REFETCH}: it is cut off")
        self.at += size
        return self._data[self.at - size : self.at]

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def count(self, code: str, *, least: int) -> int:
        """How many things follow that take at least so many bytes each."""
        found: int = self.number(code)
        if found * least > len(self._data) - self.at:
            raise CheckpointError(self.path, f"announces {found} entries, more than it can hold", fix=_REFETCH)
        return found

    def text(self) -> str:
        return self.take(self.count("Q", least=1)).decode("utf-8", "replace")

    def value(self, kind: int, key: str, depth: int = 0) -> Any:
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY and depth < 2:
            inner = self.number("I")
            if inner in _SCALARS:
                code = _SCALARS[inner]
                many = self.count("Q", least=struct.calcsize(f"<{code}"))
                return list(struct.unpack(f"<{many}{code}", self.take(many * struct.calcsize(f"<{code}"))))
            return [self.value(inner, key, depth + 1) for _ in range(self.count("Q", least=8))]
        raise CheckpointError(self.path, f"has a value of unknown type {kind}", tensor=key, fix=_REFETCH)
