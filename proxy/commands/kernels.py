"""`predawn kernels`: compile the kernels for GPUs that are not here, and plan shapes for them."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction
    from collections.abc import Sequence

    from predawn.kernels.aot import Compiled, Job
    from predawn.kernels.known_shapes import ModelShape
    from predawn.kernels.plan.plan import Plan

DTYPES = {"bf16": 2, "fp16": 2, "fp32": 4}
MOST = 1_000_000_000


def add_parser(subparsers: _SubParsersAction[ArgumentParser]) -> None:
    """Add the `kernels` command and those below it."""
    parser = subparsers.add_parser(
        "kernels",
        help="compile the shared-block kernels for named GPUs, or plan a shape for one; no GPU is needed",
        description="What the kernels become on a GPU, and what they should cost there, from a machine without one.",
    )
    below = parser.add_subparsers(title="commands", dest="kernels_command", metavar="COMMAND", required=True)
    _add_compile(below)
    _add_plan(below)


def _add_compile(below: _SubParsersAction[ArgumentParser]) -> None:
    parser = below.add_parser(
        "compile",
        help="compile for named GPUs; show registers, spills, shared memory and memory instructions",
        description="Compile the shared-block kernel for named GPUs, without one, and show what is in the binary: "
        "registers, spills, shared memory, and the instructions that move memory. Needs the `kernels` extra.",
    )
    parser.add_argument(
        "--target", nargs="+", default=["sm_90"], metavar="TARGET",
        help="sm_80 sm_86 sm_89 sm_90 sm_100 sm_120 gfx942 gfx90a gfx1100; default sm_90",
    )  # fmt: skip
    parser.add_argument(
        "--shape", action="append", metavar="SHAPE",
        help="125M, 350M, 600M, 1B, 1.5B, or dim=576,heads=9,kv_heads=3,ffn=1536,layers=30; repeatable; default 125M",
    )  # fmt: skip
    parser.add_argument("--model", type=Path, metavar="DIR", help="the shape of this checkpoint, from its config.json")
    parser.add_argument(
        "--dtype", nargs="+", choices=DTYPES, default=["bf16"], help="of weights and KV cache; default bf16"
    )
    parser.add_argument(
        "--phase",
        nargs="+",
        type=int,
        metavar="N",
        help="0 to 4: that phase alone; -1: the persistent kernel; default all",
    )
    parser.add_argument("--warps", type=int, metavar="N", help="instead of the table's: 1, 2, 4, 8 or 16")
    parser.add_argument("--stages", type=int, metavar="N", help="instead of the table's: 1 to 8")
    parser.add_argument("--json", action="store_true", help="everything as JSON")
    parser.set_defaults(run=run_compile)


def _add_plan(below: _SubParsersAction[ArgumentParser]) -> None:
    parser = below.add_parser(
        "plan",
        help="predict decode time on a GPU, where sharing wins, and which shape to train",
        description="Predict from bytes moved, without a GPU: time per token of a model's blocks run once, shared, and "
        "distinct; the loads under which sharing wins; shapes of equal stored size by predicted loss and time.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", type=Path, metavar="DIR", help="a checkpoint; only its config.json is read")
    what.add_argument(
        "--shape", metavar="SHAPE", help="125M, 350M, 600M, 1B, 1.5B, or dim=576,heads=9,kv_heads=3,ffn=1536,layers=30"
    )
    parser.add_argument("--gpu", required=True, metavar="GPU", help="such as H100, A100, L4, RTX-4090, MI300X")
    parser.add_argument("--repeat", type=_positive, metavar="R", help="passes per block, instead of the model's own")
    parser.add_argument("--batch", type=_positive, default=1, metavar="N", help="sequences decoded together; default 1")
    parser.add_argument("--context", type=_positive, default=512, metavar="N", help="tokens of each; default 512")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16", help="of weights and KV cache; default bf16")
    parser.add_argument(
        "--tokens", type=_count, metavar="N", help="training tokens, such as 30e9; default 100 per block parameter"
    )
    parser.add_argument(
        "--repeats",
        nargs="+",
        type=_positive,
        default=[1, 2],
        metavar="R",
        help="passes per block to search; default 1 2",
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw it too: .png, .svg or .pdf; needs the `plot` extra"
    )
    parser.add_argument("--json", action="store_true", help="everything as JSON")
    parser.set_defaults(run=run_plan)


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a whole number is expected, not {text!r}") from None
    if not 1 <= number <= MOST:
        raise argparse.ArgumentTypeError(f"must be 1 to {MOST:,}, not {number}")
    return number


def _count(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a number is expected, not {text!r}") from None
    if not math.isfinite(number) or number < 1:
        raise argparse.ArgumentTypeError(f"must be a number of at least 1, not {text}")
    return number


# -- plan


def run_plan(options: Namespace) -> int:
    """Print the plan; 1 if the model, the GPU or the picture's file is no good."""
    from predawn.kernels import gpus, known_shapes
    from predawn.kernels.plan import plot

    try:
        plan = _plan(options)
        if options.plot:
            plot.draw(plan, options.plot)
    except (gpus.UnknownGpuError, known_shapes.ShapeError, plot.PlotError) as exc:
        return _refused(exc)
    _print_plan(plan, options)
    return 0


def _plan(options: Namespace) -> Plan:
    from predawn.kernels import gpus
    from predawn.kernels.plan.plan import make_plan
    from predawn.kernels.roofline import Workload

    model = _model(options.shape or options.model)
    if options.repeat:
        model = replace(model, blocks=replace(model.blocks, repeat=options.repeat))
    size = DTYPES[options.dtype]
    work = Workload(options.batch, options.context, size, size)
    return make_plan(model, gpus.find(options.gpu), work, tokens=options.tokens, repeats=tuple(options.repeats))


def _model(source: str | Path) -> ModelShape:
    from predawn.kernels.known_shapes import parse_shape
    from predawn.kernels.plan.source import read_config

    return read_config(source) if isinstance(source, Path) else parse_shape(source)


def _print_plan(plan: Plan, options: Namespace) -> None:
    from predawn.kernels.plan import document, tables

    if options.json:
        print(json.dumps(document.document(plan), indent=1))
        return
    print("\n".join(tables.lines(plan)))
    if options.plot:
        print(f"picture in {options.plot}")


def _refused(reason: Exception) -> int:
    print(f"predawn: {reason}", file=sys.stderr)
    return 1


# -- compile


def run_compile(options: Namespace) -> int:
    """Print what the compiler made of each job; 1 if one failed or could not be started."""
    if missing := [name for name in ("torch", "triton") if find_spec(name) is None]:
        return _refused(ModuleNotFoundError(
            f"{' and '.join(missing)} not installed; compiling needs the kernels extra: pip install 'predawn[kernels]'"
        ))  # fmt: skip
    # the interpreter's kernels cannot be compiled; triton reads this when it is imported
    os.environ.pop("TRITON_INTERPRET", None)
    from predawn.kernels import aot, known_shapes

    try:
        wanted = _jobs(options)
    except (aot.TargetError, known_shapes.ShapeError, argparse.ArgumentTypeError) as exc:
        return _refused(exc)
    done, failed = _compile(wanted)
    if options.json:
        print(json.dumps([_record(each) for each in done], indent=1))
    else:
        print("\n".join(_lines(done)))
    return int(failed)


def _jobs(options: Namespace) -> list[Job]:
    from predawn.kernels import aot

    if options.warps is not None and options.warps not in {1, 2, 4, 8, 16}:
        raise argparse.ArgumentTypeError(f"--warps must be 1, 2, 4, 8 or 16, not {options.warps}")
    if options.stages is not None and not 1 <= options.stages <= 8:
        raise argparse.ArgumentTypeError(f"--stages must be 1 to 8, not {options.stages}")
    models = [_model(source) for source in (*(options.shape or ()), *([options.model] if options.model else ()))]
    return aot.jobs(
        options.target, models or [_model("125M")], options.dtype, options.phase or aot.EVERY_PHASE,
        warps=options.warps, stages=options.stages,
    )  # fmt: skip


def _compile(wanted: Sequence[Job]) -> tuple[list[Compiled], bool]:
    """All jobs, one after the other, saying on standard error which one is under way; whether any failed."""
    from predawn.kernels import aot, binary

    done, failed = [], False
    for number, job in enumerate(wanted, 1):
        _show(f"{number} of {len(wanted)}: {aot.describe(job)} …")
        try:
            done.append(aot.compile_job(job))
        except (aot.CompileError, aot.TargetError, binary.BinaryError) as exc:
            _show("")
            _refused(exc)
            failed = True
    _show("")
    return done, failed


def _show(text: str) -> None:
    """Progress on standard error: one line that changes in a terminal, a line each elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


def _lines(done: Sequence[Compiled]) -> list[str]:
    from predawn.kernels.columns import columns

    if not done:
        return ["nothing was compiled"]
    header = ["target", "shape", "dtype", "phase", "registers", "spilled B", "shared B", "seconds"]
    lines = columns(header, [_row(each) for each in done])
    return [line for pair in zip(lines, ["", *map(_moves, done)], strict=True) for line in pair if line]


def _row(each: Compiled) -> list[str]:
    job, found = each.job, each.resources
    time = "cached" if each.cached else f"{each.seconds:.1f}"
    phase = "all" if job.phase < 0 else str(job.phase)
    numbers = (found.registers, found.spill_bytes, found.shared_bytes)
    return [job.target.name, job.model.name, job.dtype, phase, *map(str, numbers), time]


def _moves(each: Compiled) -> str:
    counts = "  ".join(f"{name} {count}" for name, count in each.instructions.items())
    spills = each.resources.scalar_spills
    return f"    {counts}{f'  scalar spills to vector lanes {spills}' if spills else ''}"


def _record(each: Compiled) -> dict[str, Any]:
    job = each.job
    return {
        "target": job.target.name,
        "shape": job.model.name,
        "dtype": job.dtype,
        "phase": job.phase,
        "tiles": asdict(job.tiles()),
        **asdict(each.resources),
        "instructions": each.instructions,
        "seconds": each.seconds,
        "cached": each.cached,
    }
