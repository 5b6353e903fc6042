"""How long a decode step should take, from the bytes it moves: a prediction, never a measurement.

Decoding one token reads every weight once, and does little with each; its time is bytes over bandwidth until
something else is slower. A block that is run R times in a row is fetched from memory once and R-1 times from the
last-level cache, if it fits there. While its last pass runs from the cache, memory is idle and the next block can be
fetched: recompute hides the fetch. Against that stand the KV cache, which every pass has for itself, the barriers
between phases, and batches large enough to make maths the limit.

Two ways to run are predicted: one persistent kernel that prefetches, and a launch per phase in a CUDA graph.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from predawn.kernels.gpus import Gpu
from predawn.kernels.known_shapes import ModelShape
from predawn.kernels.shape import BlockShape

Limit = Literal["memory", "cache", "kv", "maths", "latency"]
"""What sets a time: weights from memory, weights from the cache, keys and values, arithmetic, barriers or launches."""


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What no data sheet says. Each is a guess on the careful side; all are printed with a prediction."""

    barrier_us: float = 1.0
    """One barrier of all multiprocessors inside a kernel."""
    launch_us: float = 2.3
    """One kernel of a CUDA graph: 1.3 µs to launch, about 1 µs to fill and drain the machine."""
    phases: int = 5
    """Barriers or launches per pass through a block."""
    cache_share: float = 0.8
    """Part of the last-level cache that weights can hold; KV, activations and bad luck have the rest."""
    tile_rows: int = 16
    """Tensor cores work on this many rows, however few sequences there are."""


ASSUMED = Assumptions()


@dataclass(frozen=True, slots=True)
class Workload:
    """What is decoded: `batch` sequences of `context` tokens each, one new token for each of them."""

    batch: int = 1
    context: int = 512
    weight_bytes: float = 2
    kv_bytes: float = 2


@dataclass(frozen=True, slots=True)
class Step:
    """The predicted time of one decode step, and what sets it."""

    seconds: float
    limit: Limit


def block_bytes(shape: BlockShape, work: Workload) -> float:
    """Weights of one stored block, in bytes."""
    return shape.block_params * work.weight_bytes


def kv_token_bytes(shape: BlockShape, work: Workload) -> float:
    """Keys and values of one token in one pass, in bytes."""
    return 2 * shape.kv_heads * shape.head_dim * work.kv_bytes


def fits_cache(shape: BlockShape, gpu: Gpu, work: Workload, assumed: Assumptions = ASSUMED) -> bool:
    """Whether a block survives in the last-level cache from one pass to the next."""
    return block_bytes(shape, work) <= assumed.cache_share * gpu.cache_mb * 1e6


@dataclass(frozen=True, slots=True)
class _Pass:
    """Seconds of the parts of one pass through a block."""

    fetch: float
    """Weights from memory."""
    reread: float
    """Weights from the cache."""
    kv: float
    maths: float

    @property
    def work(self) -> float:
        """From the cache, without barriers or launches."""
        return max(self.reread + self.kv, self.maths)


def _pass(shape: BlockShape, gpu: Gpu, work: Workload, assumed: Assumptions) -> _Pass:
    weights = block_bytes(shape, work)
    rows = -(-work.batch // assumed.tile_rows) * assumed.tile_rows
    flops = 2 * shape.block_params * rows + 4 * shape.attention_width * work.context * work.batch
    return _Pass(
        fetch=weights / (gpu.memory_tb_s * 1e12),
        reread=weights / (gpu.cache_tb_s * 1e12),
        kv=kv_token_bytes(shape, work) * work.context * work.batch / (gpu.memory_tb_s * 1e12),
        maths=flops / (gpu.tflops * 1e12),
    )


def persistent(model: ModelShape, gpu: Gpu, work: Workload, assumed: Assumptions = ASSUMED) -> Step:
    """One kernel for the whole stack. On NVIDIA it fetches ahead: the next phase, and the next block if there is room.

    Each matrix of the next block is asked for in the last pass over this one and needed a pass later, so a fetch may
    last for two passes, whatever `repeat` is. Without fetching ahead, barriers and fetches add up.
    """
    shape = model.blocks
    parts = _pass(shape, gpu, work, assumed)
    sync = assumed.phases * assumed.barrier_us * 1e-6
    front = parts.work + sync
    ahead = _room_ahead(shape, gpu, work, assumed) if gpu.fetches_ahead else 0.0
    first = max(parts.fetch + parts.kv, front) if gpu.fetches_ahead else max(parts.fetch + parts.kv, parts.maths) + sync
    if shape.repeat == 1 or not fits_cache(shape, gpu, work, assumed):
        block = shape.repeat * first
    else:
        overlapped = max(parts.fetch + 2 * parts.kv, 2 * front)
        in_turn = first + front
        block = ahead * overlapped + (1 - ahead) * in_turn + (shape.repeat - 2) * front
    if block > shape.repeat * front * 1.001:
        limit = _slowest(parts, parts.fetch, "memory")
    else:
        limit = "latency" if sync > parts.work else _slowest(parts, parts.reread, "cache")
    return Step(shape.layers * block + _head_s(model, gpu, work), limit)


def launched(model: ModelShape, gpu: Gpu, work: Workload, assumed: Assumptions = ASSUMED) -> Step:
    """A launch per phase in a CUDA graph: nothing is fetched ahead, and a block is found in the cache if it fits."""
    shape = model.blocks
    parts = _pass(shape, gpu, work, assumed)
    overhead = assumed.phases * assumed.launch_us * 1e-6
    fetched = max(parts.fetch + parts.kv, parts.maths)
    again = parts.work if fits_cache(shape, gpu, work, assumed) else fetched
    block = fetched + (shape.repeat - 1) * again + shape.repeat * overhead
    limit: Limit = "latency" if overhead > fetched else _slowest(parts, parts.fetch, "memory")
    return Step(shape.layers * block + _head_s(model, gpu, work), limit)


def _room_ahead(shape: BlockShape, gpu: Gpu, work: Workload, assumed: Assumptions) -> float:
    """The part of the next block, 0 to 1, that the cache can take while it still holds this one.

    A cache that drops what was used longest ago needs room for nearly both, though the kernel fetches matrix by matrix.
    """
    weights = block_bytes(shape, work)
    return min(1.0, max(0.0, (assumed.cache_share * gpu.cache_mb * 1e6 - weights) / weights))


def _slowest(parts: _Pass, weights: float, source: Limit) -> Limit:
    """What of a pass takes longest, if its weights take `weights` seconds from `source`."""
    if parts.maths >= weights + parts.kv:
        return "maths"
    return "kv" if parts.kv > weights else source


def _head_s(model: ModelShape, gpu: Gpu, work: Workload) -> float:
    """The projection to the vocabulary, read once per step however often blocks are run."""
    return model.vocabulary * model.blocks.dim * work.weight_bytes / (gpu.memory_tb_s * 1e12)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One model three ways: its stored blocks run once, run `repeat` times, and as many blocks of their own."""

    once: Step
    shared: Step
    distinct: Step

    @property
    def gain(self) -> float:
        """How much faster sharing is than blocks of their own, at equal depth."""
        return self.distinct.seconds / self.shared.seconds

    @property
    def cost(self) -> float:
        """How much slower sharing is than the same stored blocks run once."""
        return self.shared.seconds / self.once.seconds


Way = Literal["persistent", "launched"]


def compare(
    model: ModelShape, gpu: Gpu, work: Workload, way: Way = "persistent", assumed: Assumptions = ASSUMED
) -> Comparison:
    """Predicts a model against its two neighbours. `repeat` 1 is compared as if it were 1; the three are then equal."""
    run = persistent if way == "persistent" else launched
    shape = model.blocks
    once = replace(model, blocks=replace(shape, repeat=1))
    distinct = replace(model, blocks=replace(shape, layers=shape.passes, repeat=1))
    return Comparison(*(run(each, gpu, work, assumed) for each in (once, model, distinct)))
