"""Compiles the shared-block kernel for named GPUs on a machine that has none, and says what the compiler made of it.

`TRITON_INTERPRET` must not be set when triton is imported: the interpreter's kernels cannot be compiled.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from predawn.kernels import binary
from predawn.kernels.known_shapes import ModelShape
from predawn.kernels.shared_block.launch import ALIGNED, PERSISTENT, PHASES, constants, options, signature
from predawn.kernels.shared_block.tiles import Tiles, tiles_for

Dtype = Literal["bf16", "fp16", "fp32"]
ITEM_SIZES: dict[str, int] = {"bf16": 2, "fp16": 2, "fp32": 4}
PAGE = 16
"""Tokens of a KV page, as the engine has them."""
EVERY_PHASE = (PERSISTENT, *PHASES)


class TargetError(ValueError):
    """A GPU or a phase that cannot be compiled for; the message names those that can."""


@dataclass(frozen=True, slots=True)
class Target:
    """A GPU architecture as Triton names it."""

    name: str
    backend: Literal["cuda", "hip"]
    arch: int | str
    warp_size: int = 32
    tiles_of: str = ""
    """Whose tile sizes to use where the table has none for this one."""


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        *(Target(f"sm_{arch}", "cuda", arch) for arch in (80, 86, 89, 90, 100, 120)),
        Target("gfx942", "hip", "gfx942", 64),
        Target("gfx90a", "hip", "gfx90a", 64, "gfx942"),
        Target("gfx1100", "hip", "gfx1100", 32, "gfx942"),
    )
}


def target_named(name: str) -> Target:
    """The target of that name, or `TargetError` with the nearest ones."""
    if name in TARGETS:
        return TARGETS[name]
    near = difflib.get_close_matches(name.lower(), TARGETS, n=3, cutoff=0.5)
    raise TargetError(f"no target {name!r}; {'nearest' if near else 'known'}: {', '.join(near or TARGETS)}")


@dataclass(frozen=True, slots=True)
class Job:
    """One thing to compile: a phase of the kernel for a model's shape on a target. -1 is the persistent kernel."""

    target: Target
    model: ModelShape
    dtype: Dtype
    phase: int
    warps: int | None = None
    """Instead of the table's."""
    stages: int | None = None
    """Instead of the table's."""

    def tiles(self) -> Tiles:
        """The table's tile sizes for this target, fitted to the shape. Raises `TargetError` if it has none."""
        row = tiles_for(self.target.name) or tiles_for(self.target.tiles_of)
        if row is None:
            raise TargetError(f"{self.target.name}: the table of tile sizes has no row for it")
        fitted = row.fitted(self.model.blocks, ITEM_SIZES[self.dtype])
        if self.warps is not None:
            # as many registers as a thread of so many warps can have; the table's limit is for its own number of warps
            fitted = replace(fitted, warps=self.warps, registers=None)
        return replace(fitted, stages=self.stages or fitted.stages)


@dataclass(frozen=True, slots=True)
class Compiled:
    """What came of a job."""

    job: Job
    resources: binary.Resources
    instructions: dict[str, int]
    seconds: float
    cached: bool
    """Triton had compiled the same before; `seconds` is then the time to find it."""


class CompileError(RuntimeError):
    """Triton could not compile a job; the message names the job and quotes the compiler."""


def jobs(
    targets: Iterable[str],
    models: Sequence[ModelShape],
    dtypes: Sequence[Dtype],
    phases: Iterable[int] = EVERY_PHASE,
    *,
    warps: int | None = None,
    stages: int | None = None,
) -> list[Job]:
    """Every combination, in order. Raises `TargetError` for an unknown target or phase."""
    phases = list(phases)
    if unknown := [phase for phase in phases if phase not in EVERY_PHASE]:
        known = ", ".join(map(str, EVERY_PHASE))
        raise TargetError(f"no phase {unknown[0]}; there are {known} (-1: the persistent kernel)")
    return [
        Job(target, model, dtype, phase, warps, stages)
        for target in map(target_named, targets)
        for model in models
        for dtype in dtypes
        for phase in phases
    ]


def compile_job(job: Job) -> Compiled:
    """Compile one job and read its binary. Raises `CompileError`, `TargetError` or `binary.BinaryError`."""
    import triton
    from triton import knobs
    from triton.backends.compiler import GPUTarget

    tiles = job.tiles()
    hits: list[bool] = []
    began = time.perf_counter()
    with knobs.compilation.scope():
        knobs.compilation.listener = lambda **told: hits.append(told["cache_hit"])
        try:
            kernel = triton.compile(
                _source(job, tiles),
                target=GPUTarget(job.target.backend, job.target.arch, job.target.warp_size),
                options=options(tiles, job.phase),
            )
        except (triton.TritonError, RuntimeError, ValueError) as exc:
            raise CompileError(f"{describe(job)}: {type(exc).__name__}: {str(exc).strip()[:500]}") from exc
    seconds = time.perf_counter() - began
    resources, instructions = _inspect(kernel)
    return Compiled(job, resources, instructions, seconds, cached=any(hits))


def describe(job: Job) -> str:
    """A job in a few words."""
    phase = "persistent" if job.phase == PERSISTENT else f"phase {job.phase}"
    return f"{job.target.name} {job.model.name} {job.dtype} {phase}"


def _source(job: Job, tiles: Tiles) -> Any:
    from triton.compiler import ASTSource

    from predawn.kernels.shared_block.kernel import shared_block_decode

    prefetch = job.target.backend == "cuda"
    fixed = constants(job.model.blocks, tiles, page=PAGE, phase=job.phase, prefetch=prefetch)
    types = signature(job.dtype, job.dtype)
    names = shared_block_decode.arg_names
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in types if name in ALIGNED}
    return ASTSource(shared_block_decode, types | dict.fromkeys(fixed, "constexpr"), fixed, aligned)


def _inspect(kernel: Any) -> tuple[binary.Resources, dict[str, int]]:
    if "cubin" not in kernel.asm:
        return binary.amd(kernel.asm["amdgcn"], kernel.metadata.shared)
    from triton import knobs

    return binary.nvidia(
        kernel.asm["cubin"],
        kernel.asm["ptx"],
        kernel.metadata.shared,
        cuobjdump=knobs.nvidia.cuobjdump.path,
        nvdisasm=knobs.nvidia.nvdisasm.path,
    )
