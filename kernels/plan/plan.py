"""One plan: a model on a GPU under a load, compared and searched; every figure of it is predicted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from predawn.kernels.gpus import Gpu
from predawn.kernels.known_shapes import ModelShape
from predawn.kernels.plan.law import TOKENS_PER_PARAMETER, block_parameters
from predawn.kernels.plan.search import Design, Search, pareto
from predawn.kernels.roofline import Comparison, Workload, compare

BATCHES = (1, 4, 16, 64, 256)
CONTEXTS = (128, 512, 2048, 8192, 32768)
WINS = 1.1
"""Below this gain, blocks of their own are the better bargain: nearly the same time, and more parameters."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`model` has a `repeat` of at least 2: there is nothing to compare with one."""

    model: ModelShape
    gpu: Gpu
    work: Workload
    tokens: float
    """Training tokens the loss is predicted for."""
    search: Search
    designs: list[Design] = field(repr=False)

    @property
    def persistent(self) -> Comparison:
        """Run as one kernel that fetches ahead."""
        return compare(self.model, self.gpu, self.work)

    @property
    def launched(self) -> Comparison:
        """Run as a launch per phase in a CUDA graph."""
        return compare(self.model, self.gpu, self.work, "launched")

    @property
    def front(self) -> list[Design]:
        """The designs that no other beats in both loss and time, the fastest first."""
        return pareto(self.designs)

    def gain(self, batch: int, context: int) -> float:
        """How much faster sharing is than blocks of their own under another load, run as one kernel."""
        return compare(self.model, self.gpu, replace(self.work, batch=batch, context=context)).gain


def make_plan(
    model: ModelShape, gpu: Gpu, work: Workload, *, tokens: float | None = None, repeats: tuple[int, ...] = (1, 2)
) -> Plan:
    """Plans for a model; one that runs its blocks once is compared as if it ran them twice."""
    if model.blocks.repeat == 1:
        model = replace(model, blocks=replace(model.blocks, repeat=2))
    tokens = tokens or TOKENS_PER_PARAMETER * block_parameters(model.blocks)
    search = Search(model, gpu, work, tokens, repeats)
    return Plan(model, gpu, work, tokens, search, search.designs())
