"""Shapes that have a name, and shapes written on a command line."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from predawn.kernels.shape import BlockShape

DEFAULT_VOCABULARY = 32_000
LARGEST = 1 << 20
"""Of any one dimension: far above every model, and low enough to compute with."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The blocks of a model, and how many tokens its last projection tells apart."""

    name: str
    blocks: BlockShape
    vocabulary: int = DEFAULT_VOCABULARY

    def __post_init__(self) -> None:
        if not 0 <= self.vocabulary <= LARGEST:
            raise ShapeError(f"shape: vocabulary must be 0 to {LARGEST:,}, not {self.vocabulary}")


class ShapeError(ValueError):
    """A shape that cannot be; the message names the part and what it may be."""


def _model(name: str, *dims: int) -> ModelShape:
    dim, heads, kv_heads, ffn, layers = dims
    return ModelShape(name, BlockShape(dim, heads, kv_heads, 64, ffn, layers))


KNOWN_SHAPES: dict[str, ModelShape] = {
    model.name: model
    for model in (  # MobileLLM, arXiv 2402.14905, table 1 and appendix; each block is run twice
        _model("125M", 576, 9, 3, 1536, 30),
        _model("350M", 960, 15, 5, 2560, 32),
        _model("600M", 1152, 18, 6, 3072, 40),
        _model("1B", 1280, 20, 5, 3584, 54),
        _model("1.5B", 1600, 25, 5, 4352, 54),
    )
}

_REQUIRED = ("dim", "heads", "kv_heads", "ffn", "layers")
_OPTIONAL = ("head_dim", "repeat", "vocabulary")
_SPELLING = "dim=576,heads=9,kv_heads=3,ffn=1536,layers=30[,head_dim=64][,repeat=2][,vocabulary=32000]"


def parse_shape(text: str) -> ModelShape:
    """A shape by its name (`125M`) or written out (`dim=576,heads=9,kv_heads=3,ffn=1536,layers=30`).

    `head_dim` is `dim / heads` unless given, `repeat` 2, `vocabulary` 32,000. Raises `ShapeError`.
    """
    text = text.strip()
    if "=" not in text:
        return _by_name(text)
    given: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, _, value = (word.strip() for word in part.partition("="))
        if key not in (*_REQUIRED, *_OPTIONAL):
            raise ShapeError(f"shape: {key!r} is no part of a shape{_nearest(key)}; write {_SPELLING}")
        if key in given:
            raise ShapeError(f"shape: {key} is given twice")
        given[key] = _whole_number(key, value)
    if missing := [key for key in _REQUIRED if key not in given]:
        raise ShapeError(f"shape: {', '.join(missing)} missing; write {_SPELLING}")
    vocabulary = given.pop("vocabulary", DEFAULT_VOCABULARY)
    head_dim = given.pop("head_dim", 0) or _even_share(given["dim"], given["heads"])
    return ModelShape(text, checked(BlockShape(**given, head_dim=head_dim)), vocabulary)


def checked(shape: BlockShape) -> BlockShape:
    """The same shape if a decoder can have it; `ShapeError` otherwise."""
    for name in ("dim", "heads", "kv_heads", "head_dim", "ffn", "layers", "repeat"):
        if not 1 <= (value := getattr(shape, name)) <= LARGEST:
            raise ShapeError(f"shape: {name} must be 1 to {LARGEST:,}, not {value}")
    if shape.heads % shape.kv_heads:
        raise ShapeError(f"shape: heads ({shape.heads}) must be a multiple of kv_heads ({shape.kv_heads})")
    if shape.head_dim % 2:
        raise ShapeError(f"shape: head_dim ({shape.head_dim}) must be even: rotary positions turn pairs")
    return shape


def _by_name(name: str) -> ModelShape:
    for known, model in KNOWN_SHAPES.items():
        if known.lower() == name.lower():
            return model
    raise ShapeError(f"no shape {name!r}; known: {', '.join(KNOWN_SHAPES)}; or write {_SPELLING}")


def _whole_number(key: str, value: str) -> int:
    try:
        return int(value.replace("_", ""))
    except ValueError:
        raise ShapeError(f"shape: {key} must be a whole number, not {value!r}") from None


def _even_share(dim: int, heads: int) -> int:
    if heads < 1 or dim % heads:
        raise ShapeError(f"shape: dim ({dim}) is no multiple of heads ({heads}); give head_dim")
    return dim // heads


def _nearest(key: str) -> str:
    near = difflib.get_close_matches(key, (*_REQUIRED, *_OPTIONAL), n=1)
    return f" — did you mean {near[0]!r}?" if near else ""
