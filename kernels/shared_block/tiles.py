"""Tile sizes per class of GPU, as a table: `triton.autotune` needs a driver, and a table can be compiled ahead of time.

None of these rows has been timed on a GPU. They follow from three things that can be known without one: a tile of a
matrix product is at least 16 rows by 8 columns; nothing may spill; and the loads in flight should cover the latency of
memory, about 15 KB of weights per SM on an H100.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType

from predawn.kernels.shape import BlockShape

MAX_BATCH = 16
"""Rows of a tile: the least a tensor core takes. Fewer rows are masked, so each row's arithmetic is always the same."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """How one class of GPU cuts the phases up. Powers of two."""

    pairs: int
    """rotary pairs of one unit of phase 0, hence twice as many rows of the QKV projection"""
    outputs: int
    """outputs of one unit of phases 2 and 4"""
    hidden: int
    """hidden units of one unit of phase 3, each with its gate and its up row"""
    depth: int
    """inputs per step of a matrix product of phases 0 and 3, which normalise them on the way"""
    depth_back: int
    """the same of phases 2 and 4, which do not, and have registers to spare"""
    keys: int
    """keys per step of attention"""
    splits: int
    """parts that a sequence's keys are cut into; short sequences leave some empty"""
    warps: int = 4
    stages: int = 3
    """how many steps' loads are under way at once"""
    registers: int | None = None
    """of one thread; None leaves it to the compiler, which saves registers for programs that would not fit anyway"""

    def fitted(self, shape: BlockShape, itemsize: int) -> Tiles:
        """No wider than the shape; for 4-byte weights half as deep, so that a step keeps its bytes."""
        narrower = 1 if itemsize <= 2 else 2
        return replace(
            self,
            pairs=max(8, min(self.pairs, power_of_two(shape.head_dim // 2))),
            outputs=min(self.outputs, power_of_two(shape.dim)),
            hidden=min(self.hidden, power_of_two(shape.ffn)),
            depth=min(self.depth // narrower, power_of_two(shape.dim)),
            depth_back=min(self.depth_back // narrower, power_of_two(min(shape.attention_width, shape.ffn))),
            registers=None if itemsize > 2 else self.registers,  # fp32 spills with 232
        )


_NVIDIA = Tiles(pairs=8, outputs=8, hidden=16, depth=64, depth_back=128, keys=64, splits=8, stages=4)

TILES = MappingProxyType(
    {
        "sm_80": replace(_NVIDIA, registers=232),
        "sm_86": replace(_NVIDIA, registers=232),
        "sm_89": replace(_NVIDIA, registers=232),
        "sm_90": replace(_NVIDIA, splits=16, stages=5, registers=232),
        "sm_100": replace(_NVIDIA, splits=16, depth_back=64),
        "sm_120": replace(_NVIDIA, splits=16, keys=32, stages=5),
        "gfx942": Tiles(pairs=16, outputs=16, hidden=16, depth=64, depth_back=64, keys=32, splits=16, stages=2),
        # Triton's interpreter: what it costs is the number of operations, not their size
        "interpreter": Tiles(pairs=64, outputs=256, hidden=512, depth=256, depth_back=256, keys=64, splits=2),
    }
)
"""By compilation target."""

_NEAREST = MappingProxyType({"sm_87": "sm_86", "sm_103": "sm_100", "sm_121": "sm_120", "gfx950": "gfx942"})


def power_of_two(n: int) -> int:
    """The least power of two that is no less than `n`."""
    return 1 << (n - 1).bit_length()


def tiles_for(target: str) -> Tiles | None:
    """The table's row for a target such as `sm_90` or `gfx942`, or for its next of kin; None if there is none."""
    return TILES.get(_NEAREST.get(target, target))
