"""The persistent kernel with real concurrency and no GPU: a process per program, all tensors in shared memory.

The interpreter runs programs one after another, where a grid barrier would spin for ever. Here each process runs one
program of the grid, so the barrier really waits. Once more without it, the programs run in an order that a GPU would then
be free to choose: one, then the next. Prints how both compare with a grid of one program, as JSON.
"""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace

os.environ["TRITON_INTERPRET"] = "1"

import torch
import torch.multiprocessing
import triton
import triton.language as tl
from tests.kernels.shared_block.cases import Case, error, identical, random_case
from triton.runtime import interpreter as triton_interpreter

from predawn.kernels.shape import BlockShape
from predawn.kernels.shared_block import kernel, launch
from predawn.kernels.shared_block.execution import interpreter
from predawn.kernels.shared_block.tiles import TILES, Tiles

SHAPE = BlockShape(dim=64, heads=4, kv_heads=2, head_dim=16, ffn=96, layers=2, repeat=2)


@triton.jit
def no_barrier(word):
    tl.debug_barrier()


def narrow_tiles() -> Tiles:
    """Small enough that every program of the grid has units of every phase."""
    return replace(TILES["interpreter"], outputs=16, hidden=16, pairs=8, keys=16)


def run_program(rank: int, programs: int, arguments: tuple, constants: dict, barrier: bool) -> None:
    """In a process of its own: one program of the grid."""
    signal.alarm(60)  # if another program fails, this one would wait for it for ever
    torch.set_num_threads(1)
    builder = triton_interpreter.interpreter_builder
    set_dim, set_idx = builder.set_grid_dim, builder.set_grid_idx
    builder.set_grid_dim = lambda *_: set_dim(programs, 1, 1)
    builder.set_grid_idx = lambda *_: set_idx(rank, 0, 0)
    if not barrier:
        kernel.grid_barrier = no_barrier
    kernel.shared_block_decode[(1,)](*arguments, **constants)


def run_grid(case: Case, programs: int, *, barrier: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Result and caches of one step by `programs` processes."""
    shape = case.shape
    tiles = narrow_tiles().fitted(shape, itemsize=4)
    x, k, v = case.x.clone(), case.k.clone(), case.v.clone()
    torch.use_deterministic_algorithms(True)  # fresh memory is NaN: what is read too early shows
    scratch = launch.scratch(x, case.weights, shape, k.dtype, tiles.splits)
    stacks = [getattr(case.weights, name) for name in case.weights.__slots__]
    tensors = (x, *scratch, *stacks, k, v, case.pages, case.positions, case.cos, case.sin)
    shared = tuple(tensor.share_memory_() for tensor in tensors)
    rest = (shape.repeat, shape.repeat, len(x), case.pages.shape[1], k.stride(0), shape.eps, shape.head_dim**-0.5)
    constants = launch.constants(
        shape, tiles, page=k.shape[2], phase=launch.PERSISTENT, prefetch=False, interpreted=True
    )
    fork = torch.multiprocessing.get_context("fork")
    arguments = (*shared, 0, shape.passes, *rest)
    processes = [
        fork.Process(target=run_program, args=(rank, programs, arguments, constants, barrier))
        for rank in range(programs)
    ]
    for process in processes:
        process.start()
        if not barrier:
            process.join()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * programs
    assert not scratch.counters[1:].any(), "the counters of arrivals are left as they were found"
    return shared[0], k, v


def main() -> None:
    torch.set_num_threads(1)
    case = random_case(SHAPE, [0, 40])
    expected = case.kernel(replace(interpreter("persistent"), tiles=narrow_tiles()))
    concurrent = run_grid(case, programs=3, barrier=True)
    unordered = run_grid(case, programs=3, barrier=False)
    print(json.dumps({"identical": identical(concurrent, expected), "error_without": error(unordered[0], expected[0])}))


if __name__ == "__main__":
    main()
