"""Matrix products of few rows whose every row has the same bits whatever the other rows are, and however many.

A plain product does not promise that: for one row a library takes another routine than for four. So the arithmetic is
chosen when a model is loaded, by looking: the fastest routine whose rows prove independent on this processor, with this
number of threads, for this shape. Measured on one AVX-512 core, microseconds for 1 / 4 / 16 rows of a 512 x 256 and of
a 3072 x 576 matrix in float32:

    oneDNN, weights packed once      18 / 18 / 30        87 / 89 / 247     stable from 2 rows on, often from 1
    F.linear (MKL)                    8 / 21 / 50        97 / 265 / 649    stable from 4 rows on, not from 1
    F.linear on tiles of 4 rows      24 / 21 / 84       271 / 266 / 1064   stable
    one matrix-vector product a row  11 / 33 / 123      101 / 395 / 1553   stable

In bfloat16 oneDNN takes 14 / 14 / 20 and 57 / 56 / 143 and is stable in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

MAX_ROWS = 16
"""Rows of one call for which independence is proven; more are computed in several calls."""
_TILE = 4
_ROLL = 5
_FEWEST = (1, 2, 4)
"""So many rows cost oneDNN as much as one."""
Product = Callable[[Tensor], Tensor]
"""`[rows, in] -> [rows, out]`, in the dtype of the weights."""


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How the products of a model are computed."""

    name: str
    prepare: Callable[[Tensor], Product]
    """Make the product with a weight `[out, in]`."""
    fewest_rows: int
    """Rows a call must have at least, lest the library take another routine."""


def choose(weights: Sequence[Tensor]) -> Arithmetic:
    """The fastest arithmetic whose rows are independent for matrices like these, one of each shape."""
    for name, prepare in (("packed", _packed), ("tiles", _tiled)):
        if (fewest := _fewest_rows(prepare, weights)) is not None:
            return Arithmetic(name, prepare, fewest)
    return Arithmetic("row by row", _row_by_row, 1)


def _fewest_rows(prepare: Callable[[Tensor], Product], weights: Sequence[Tensor]) -> int | None:
    """From how many rows on products are independent; None if never, or if this build of torch cannot make them."""
    fewest = 1
    for weight in weights:
        try:
            product = prepare(_telling(weight))
            fewest = next(n for n in _FEWEST if n >= fewest and independent(product, weight.shape[1], weight.dtype, n))
        except (StopIteration, RuntimeError, AttributeError):
            return None
    return fewest


def independent(product: Product, width: int, dtype: torch.dtype, fewest: int = 1) -> bool:
    """Whether rows keep their bits in batches of `fewest` to MAX_ROWS rows, in any place."""
    half = torch.randn(MAX_ROWS, width // 2, generator=_seeded()).to(dtype)
    rows = torch.cat([half, -half.roll(_ROLL, 1), half[:, : width % 2]], 1)
    whole = product(rows)
    turned = product(rows.flip(0).contiguous()).flip(0)
    parts = (torch.equal(product(rows[:count].clone()), whole[:count]) for count in range(fewest, MAX_ROWS))
    return torch.equal(turned, whole) and all(parts)


def _telling(weight: Tensor) -> Tensor:
    """A weight of this shape with which `independent` sees every change in the order of a sum.

    Rounded to half precision, nearly all sums hide the last bits in which one order differs from another. With this
    weight all terms cancel but for the rounding of the sum itself, and what is left shows all its bits. In float32 any
    weight will do, and the largest matrix is spared a copy.
    """
    if weight.dtype == torch.float32:
        return weight
    half = torch.randn(weight.shape[0], weight.shape[1] // 2, generator=_seeded()).to(weight.dtype)
    return torch.cat([half, half.roll(_ROLL, 1), torch.zeros_like(weight[:, : weight.shape[1] % 2])], 1)


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _packed(weight: Tensor) -> Product:
    """By the operators that torch's own compiler uses; not every build has them for every dtype."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), MAX_ROWS)  # noqa: SLF001
    linear = torch.ops.mkldnn._linear_pointwise.default  # noqa: SLF001

    def product(rows: Tensor) -> Tensor:
        made: Tensor = linear(rows, packed, None, "none", [], "")
        return made

    return product


def _tiled(weight: Tensor) -> Product:
    def product(rows: Tensor) -> Tensor:
        count = rows.shape[0]
        if count > MAX_ROWS:  # a prompt: its rows need no promise
            return functional.linear(rows, weight)
        padded = functional.pad(rows, (0, 0, 0, -count % _TILE))
        tiles = [functional.linear(tile, weight) for tile in padded.split(_TILE)]
        return torch.cat(tiles)[:count] if len(tiles) > 1 else tiles[0][:count]

    return product


def _row_by_row(weight: Tensor) -> Product:
    def product(rows: Tensor) -> Tensor:
        if rows.shape[0] > MAX_ROWS:
            return functional.linear(rows, weight)
        return torch.stack([torch.mv(weight, row) for row in rows])

    return product
