"""Shapes of equal stored size, and those that no other beats in both predicted loss and predicted time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from predawn.kernels.gpus import Gpu
from predawn.kernels.known_shapes import ModelShape
from predawn.kernels.plan import law
from predawn.kernels.roofline import Workload, persistent
from predawn.kernels.shape import BlockShape

TILE = 64
"""Hidden and feed-forward sizes are multiples of it, as the kernels' tiles are."""
SIZE_TOLERANCE = 0.02
WIDTHS = (0.045, 0.12)
"""Range of d/√N searched; the law's optimum is at 0.08, and it was fitted around that."""
MOST_WIDTHS = 40
RATIOS = tuple(law.FITTED_RATIOS[0] * 10 ** (step / 20) for step in range(21))
GROUPS = (1, 2, 3, 4, 8)


@dataclass(frozen=True, slots=True)
class Design:
    """A shape with its predictions."""

    name: str
    shape: BlockShape
    loss: float
    """Nats, predicted."""
    step_s: float
    """Seconds per decode step, predicted."""

    @property
    def group(self) -> int:
        """Query heads per KV head."""
        return self.shape.heads // self.shape.kv_heads


@dataclass(frozen=True, slots=True)
class Search:
    """What is searched around `model`: its depth and stored size stay, the rest varies."""

    model: ModelShape
    gpu: Gpu
    work: Workload
    tokens: float
    repeats: Sequence[int] = (1, 2)
    groups: Sequence[int] = GROUPS

    def design(self, name: str, shape: BlockShape) -> Design:
        """Predictions for one shape."""
        model = replace(self.model, name=name, blocks=shape)
        return Design(
            name, shape, law.predicted_loss(shape, self.tokens), persistent(model, self.gpu, self.work).seconds
        )

    def references(self) -> list[Design]:
        """The model as it is, run once, and with blocks of their own for every pass."""
        shape = self.model.blocks
        many = max(2, shape.repeat)
        return [
            self.design(f"{shape.layers} blocks once", replace(shape, repeat=1)),
            self.design(f"{shape.layers} x {many} shared", replace(shape, repeat=many)),
            self.design(f"{shape.layers * many} distinct", replace(shape, layers=shape.layers * many, repeat=1)),
        ]

    def designs(self) -> list[Design]:
        """Every shape of the same depth and stored size within 2 %, each once."""
        shapes = dict.fromkeys(_shapes(self.model.blocks, self.groups, self.repeats))
        return [self.design(_name(shape), shape) for shape in shapes]


def pareto(designs: Iterable[Design]) -> list[Design]:
    """Those designs that no other beats in both, the fastest first."""
    kept: list[Design] = []
    for design in sorted(designs, key=lambda design: (design.step_s, design.loss)):
        if not kept or design.loss < kept[-1].loss:
            kept.append(design)
    return kept


def thinned(designs: Sequence[Design], most: int) -> list[Design]:
    """At most `most` of them, evenly spaced, both ends among them."""
    if len(designs) <= most:
        return list(designs)
    return [designs[round(place * (len(designs) - 1) / (most - 1))] for place in range(most)]


def _shapes(base: BlockShape, groups: Sequence[int], repeats: Sequence[int]) -> Iterator[BlockShape]:
    total = law.block_parameters(base)
    narrowest, widest = (math.sqrt(total) * width for width in WIDTHS)
    first = max(TILE, math.ceil(narrowest / TILE) * TILE)
    step = TILE * max(1, math.ceil((widest - narrowest) / TILE / MOST_WIDTHS))
    for dim, ratio, group in itertools.product(range(first, int(widest) + 1, step), RATIOS, groups):
        shape = _shape(base, dim, ratio, group)
        if shape is not None:
            yield from (replace(shape, repeat=repeat) for repeat in repeats)


def _shape(base: BlockShape, dim: int, ratio: float, group: int) -> BlockShape | None:
    """The shape nearest to `ratio` at this width and group; None if rounding misses the size or the law's range."""
    attention = base.block_params / (1 + ratio)
    kv_heads = max(1, round(attention / (2 * dim * base.head_dim * (group + 1))))
    attention = 2 * dim * base.head_dim * (group + 1) * kv_heads
    ffn = round((base.block_params - attention) / (3 * dim) / TILE) * TILE
    if ffn < TILE:
        return None
    shape = replace(base, dim=dim, heads=kv_heads * group, kv_heads=kv_heads, ffn=ffn)
    within = abs(shape.block_params / base.block_params - 1) <= SIZE_TOLERANCE
    low, high = law.FITTED_RATIOS
    return shape if within and low <= law.mlp_ratio(shape) <= high else None


def _name(shape: BlockShape) -> str:
    return f"{shape.dim}/{shape.ffn} {shape.heads}:{shape.kv_heads} x{shape.repeat}"
