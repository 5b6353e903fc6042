"""Measures the fused decode step on a GPU: `python tests/benchmarks/kernels/gpu.py`, or `make bench-gpu`.

Needs an NVIDIA or AMD GPU, a torch that can use it (PyPI's for Linux is built for CUDA; for ROCm install one first) and triton. Takes a few minutes; writes results/bench-gpu.json, a CSV and a picture. Without a GPU it says so and exits with 1.

For each shape, batch and context, three models — L blocks once, L blocks shared (R=2), 2L distinct blocks — each three ways:

- `eager graph`: ordinary torch code in a CUDA graph
- `phases graph`: the fused kernel, a launch per phase, in a CUDA graph
- `persistent`: the fused kernel as one cooperative launch that fetches ahead

Each way's result is compared with the fp32 reference before it is timed. Ways and models take turns within a round.
"""

import argparse
import csv
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.benchmarks.evidence import CHECKOUT, Bar, Evidence, rounded, versions_of
from tests.benchmarks.kernels.figures import AtLeast

from predawn.kernels.gpus import UnknownGpuError, find
from predawn.kernels.known_shapes import KNOWN_SHAPES, ModelShape
from predawn.kernels.roofline import Workload, launched, persistent
from predawn.kernels.shape import BlockShape, BlockWeights

if TYPE_CHECKING:
    import torch

PAGE = 16
ERROR_BAR = 0.05
"""Largest difference from the fp32 reference, over the largest value: bf16 has 8 bits, and errors add up over the passes."""
STEPS = 20
"""Decode steps per timing."""


def main() -> int:
    options = parse()
    if (missing := what_is_missing()) is not None:
        print(f"bench-gpu: {missing}", file=sys.stderr)
        return 1
    import torch

    name = torch.cuda.get_device_name()
    evidence = Evidence("gpu", seeds={"weights": 0}, versions=versions_of("predawn", "torch", "triton"))
    evidence.settings = {"gpu": name, "rounds": options.rounds, "steps": STEPS, "dtype": "bf16"}
    rows = [row for case in cases(options) for row in measure(case, name, options.rounds, evidence)]
    evidence.figures = {"rows": rows}
    evidence.bars |= bars(rows)
    out = options.out if options.out.is_absolute() else CHECKOUT / options.out
    evidence.save(out)
    write(rows, out.with_suffix(".csv"))
    draw(rows, name, out.with_suffix(".png"))
    print(evidence.summary())
    print(f"evidence in {out.name}, {out.with_suffix('.csv').name}, {out.with_suffix('.png').name}")
    return 0 if evidence.all_hold else 1


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=KNOWN_SHAPES, default=["125M", "350M"], metavar="SHAPE")
    parser.add_argument("--batches", nargs="+", type=int, choices=range(1, 17), default=[1, 4, 16], metavar="N")
    parser.add_argument("--contexts", nargs="+", type=int, default=[512, 2048], metavar="N")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("results/bench-gpu.json"))
    return parser.parse_args(words)


def what_is_missing() -> str | None:
    """Why this machine cannot run the benchmark, and what would help; None if it can."""
    try:
        import torch
        import triton  # noqa: F401
    except ImportError as reason:
        return f"{reason.name} is not installed; needed are a GPU, a torch built for it, and triton (pip install 'predawn[kernels]')"
    if not torch.cuda.is_available():
        build = "without GPU support" if torch.version.cuda is None and torch.version.hip is None else "for GPUs"
        return (
            f"no GPU is visible to torch {torch.__version__} (built {build}). Needed: an NVIDIA GPU of compute capability 8.0 or "
            "later, or an AMD CDNA GPU, its driver, and a torch built for it. Nothing was measured."
        )
    from predawn.kernels.shared_block import choose

    execution = choose(torch.device("cuda"))
    return f"this GPU runs plain torch only: {execution.reason}" if execution.mode == "eager" else None


# -- what is measured


@dataclass(frozen=True)
class Case:
    """One model's decode step with everything it needs in GPU memory."""

    model: ModelShape
    kind: str
    """once, shared or distinct"""
    batch: int
    context: int
    x: "torch.Tensor"
    weights: BlockWeights
    k: "torch.Tensor"
    v: "torch.Tensor"
    pages: "torch.Tensor"
    positions: "torch.Tensor"
    cos: "torch.Tensor"
    sin: "torch.Tensor"

    @property
    def shape(self) -> BlockShape:
        return self.model.blocks


def cases(options: argparse.Namespace) -> Iterator[list[Case]]:
    """The three models of each shape, batch and context; those of the last are gone before the next is made."""
    for name in options.shapes:
        base = KNOWN_SHAPES[name]
        kinds = {
            "once": replace(base.blocks, repeat=1),
            "shared": base.blocks,
            "distinct": replace(base.blocks, layers=base.blocks.passes, repeat=1),
        }
        for batch in options.batches:
            for context in options.contexts:
                yield [make(replace(base, blocks=shape), kind, batch, context, "cuda") for kind, shape in kinds.items()]


def make(model: ModelShape, kind: str, batch: int, context: int, device: str, dtype: Any = None) -> Case:
    """Random weights and a cache full of random keys and values, every sequence at its last position."""
    import torch

    from predawn.kernels.reference import rope_tables

    shape, dtype = model.blocks, dtype or torch.bfloat16
    generator = torch.Generator(device).manual_seed(0)

    def normal(*size: int, fan_in: int) -> torch.Tensor:
        return (torch.randn(*size, generator=generator, device=device) * fan_in**-0.5).to(dtype)

    layers, dim, width = shape.layers, shape.dim, shape.attention_width
    weights = BlockWeights(
        normal(layers, shape.qkv_rows, dim, fan_in=dim),
        normal(layers, dim, width, fan_in=width * 2 * shape.passes),
        normal(layers, 2, shape.ffn, dim, fan_in=dim),
        normal(layers, dim, shape.ffn, fan_in=shape.ffn * 2 * shape.passes),
        torch.ones(layers, dim, device=device, dtype=dtype),
        torch.ones(layers, dim, device=device, dtype=dtype),
    )
    columns = -(-context // PAGE)
    cache = (shape.passes, columns * batch, PAGE, shape.kv_heads, shape.head_dim)
    order = torch.randperm(columns * batch, generator=generator, device=device).to(torch.int32)
    cos, sin = rope_tables(shape, context, device)
    return Case(
        model, kind, batch, context, torch.randn(batch, dim, generator=generator, device=device), weights,
        normal(*cache, fan_in=1), normal(*cache, fan_in=1), order.view(batch, columns),
        torch.full((batch,), context - 1, device=device, dtype=torch.int32), cos, sin,
    )  # fmt: skip


def eager_step(case: Case) -> "torch.Tensor":
    """The decode step as one would write it in torch for a CUDA graph: fixed lengths, nothing read back to the host."""
    import torch.nn.functional as F

    from predawn.kernels.reference import rms_norm, rotate

    shape, weights = case.shape, case.weights
    where = case.positions.long()
    slot = case.pages.gather(1, (where // PAGE)[:, None])[:, 0].long(), where % PAGE
    pages, angles = case.pages.long(), (case.cos[where], case.sin[where])
    x = case.x.to(weights.qkv.dtype)
    for index in range(shape.passes):
        layer = index // shape.repeat
        qkv = F.linear(rms_norm(x, weights.norm1[layer], shape.eps), weights.qkv[layer]).view(
            case.batch, -1, shape.head_dim
        )
        q, k, v = qkv.split([shape.heads, shape.kv_heads, shape.kv_heads], 1)
        case.k[index][slot], case.v[index][slot] = rotate(k, *angles), v
        keys, values = (
            cache[index][pages].flatten(1, 2)[:, : case.context].transpose(1, 2) for cache in (case.k, case.v)
        )
        mixed = F.scaled_dot_product_attention(rotate(q, *angles)[:, :, None], keys, values, enable_gqa=True)
        x = x + F.linear(mixed.flatten(1), weights.o[layer])
        h = rms_norm(x, weights.norm2[layer], shape.eps)
        gate, up = weights.gate_up[layer]
        x = x + F.linear(F.silu(F.linear(h, gate)) * F.linear(h, up), weights.down[layer])
    return x


def ways(case: Case) -> dict[str, Callable[[], "torch.Tensor"]]:
    """The ways to run a case on this GPU, not yet captured; AMD's have no persistent launch."""
    import torch

    from predawn.kernels.shared_block.execution import choose
    from predawn.kernels.shared_block.launch import launch

    best = choose(torch.device("cuda"))
    where = (case.k, case.v, case.pages, case.positions, case.cos, case.sin)

    def fused(mode: str) -> Callable[[], torch.Tensor]:
        execution = replace(best, mode=mode)
        return lambda: launch(execution, case.x, case.weights, case.shape, *where, repeat=case.shape.repeat)

    found = {"eager graph": lambda: eager_step(case), "phases graph": fused("phases")}
    return found | {"persistent": fused("persistent")} if best.mode == "persistent" else found


def captured(step: Callable[[], Any]) -> Callable[[], None]:
    """`step` as a CUDA graph; `step` itself where it cannot be captured, as some drivers refuse cooperative launches."""
    import torch

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            step()
    except RuntimeError as reason:
        print(f"    not captured: {reason}", flush=True)
        torch.cuda.synchronize()
        return step
    return graph.replay


def measure(three: list[Case], gpu: str, rounds: int, evidence: Evidence) -> list[dict[str, Any]]:
    """A row for each model and way."""
    from predawn.kernels import reference

    runs: dict[tuple[str, str], Callable[[], Any]] = {}
    for case in three:
        label = f"{case.model.name} {case.kind}, batch {case.batch}, context {case.context}"
        print(f"  {label}", flush=True)
        where = (case.k.clone(), case.v.clone(), case.pages, case.positions, case.cos, case.sin)
        expected = reference.decode_step(case.x, case.weights, case.shape, *where)
        for way, step in ways(case).items():
            error = float((step().float() - expected).abs().max() / expected.abs().max())
            # NaN must break the bar: it compares as false
            evidence.bars[f"{label}: {way} against the fp32 reference"] = Bar(
                error if error == error else 1e9, ERROR_BAR
            )
            runs[case.kind, way] = captured(step)
    took: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    for round_ in range(rounds + 1):
        keys = list(runs)
        start = round_ % len(keys)
        for key in (*keys[start:], *keys[:start]):
            microseconds = timed(runs[key])
            if round_:
                took[key].append(microseconds)
    return [row(case, way, took[case.kind, way], gpu) for case in three for way in ways(case)]


def timed(run: Callable[[], Any]) -> float:
    """Microseconds per step, by the GPU's own clock."""
    import torch

    began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    began.record()
    for _ in range(STEPS):
        run()
    ended.record()
    ended.synchronize()
    return began.elapsed_time(ended) * 1e3 / STEPS


def row(case: Case, way: str, took: list[float], gpu: str) -> dict[str, Any]:
    return {
        "shape": case.model.name,
        "model": case.kind,
        "way": way,
        "batch": case.batch,
        "context": case.context,
        "us": statistics.median(took),
        "us_least": min(took),
        "us_most": max(took),
        "us_predicted": predicted(case, way, gpu),
    }


def predicted(case: Case, way: str, gpu: str) -> float | None:
    """The roofline's time without the vocabulary projection; None for eager code and GPUs it does not know."""
    run = {"persistent": persistent, "phases graph": launched}.get(way)
    try:
        known = find(gpu)
    except UnknownGpuError:
        return None
    blocks_only = replace(case.model, vocabulary=0)
    return run(blocks_only, known, Workload(case.batch, case.context)).seconds * 1e6 if run else None


def bars(rows: list[dict[str, Any]]) -> dict[str, Bar]:
    """Nothing is promised about speed before a GPU has been seen: gains are shown, and must only be no loss against eager code."""
    found: dict[str, Bar] = {}
    times = {tuple(row[key] for key in ("shape", "batch", "context", "model", "way")): row["us"] for row in rows}
    for shape, batch, context, model, way in times:
        if model != "shared" or way != "persistent":
            continue
        own = times[shape, batch, context, "shared", "persistent"]
        label = f"{shape}, batch {batch}, context {context}"
        eager = times[shape, batch, context, "shared", "eager graph"]
        distinct = times[shape, batch, context, "distinct", "persistent"]
        found[f"{label}: fused against eager graph, R=2"] = AtLeast(eager / own, 1.0, "×")
        found[f"{label}: shared against 2L distinct, both persistent"] = AtLeast(distinct / own, 0.95, "×")
    return found


# -- what is left behind


def write(rows: list[dict[str, Any]], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rounded(row) for row in rows)


def draw(rows: list[dict[str, Any]], gpu: str, path: Path) -> None:
    """Time per step of the three models, a group for each load, a panel for each way."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(row["way"] for row in rows))
    figure, axes = pyplot.subplots(
        1, len(names), figsize=(6 * len(names), 5), layout="constrained", sharey=True, squeeze=False
    )
    for axis, way in zip(axes.flat, names, strict=True):
        loads = list(dict.fromkeys((row["shape"], row["batch"], row["context"]) for row in rows))
        for place, model in enumerate(("once", "shared", "distinct")):
            chosen = [row["us"] for row in rows if row["way"] == way and row["model"] == model]
            axis.barh([load + place * 0.27 for load in range(len(loads))], chosen, 0.25, label=model)
        axis.set_yticks(
            [load + 0.27 for load in range(len(loads))], [f"{s}, batch {b}, {c}" for s, b, c in loads], fontsize=8
        )
        axis.set(title=way, xlabel="µs per step")
        axis.legend(fontsize=8)
    figure.suptitle(f"decode step on {gpu}")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
