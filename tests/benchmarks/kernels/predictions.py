"""The roofline for GPUs that are not here, as a table. Predicted, not measured: no bar stands on it."""

from tests.benchmarks.kernels.figures import Figures

from predawn.kernels.gpus import GPUS
from predawn.kernels.known_shapes import KNOWN_SHAPES
from predawn.kernels.roofline import Workload, compare, fits_cache

MARK = "predicted, not measured"
SHAPES = ("125M", "350M", "1B")
NAMED = ("H100", "A100", "L4", "RTX-4060", "RTX-4090", "RTX-5090", "MI300X")


def run(rounds: int) -> Figures:
    """Every named shape on every GPU of the list, one sequence of 512 tokens in bf16. `rounds` changes nothing."""
    del rounds
    work = Workload()
    figures = Figures(
        settings={"batch": work.batch, "context": work.context, "dtype": "bf16"}, notes=[f"part (d) is {MARK}"]
    )
    for name in SHAPES:
        for gpu in (gpu for gpu in GPUS if gpu.name in NAMED):
            model = KNOWN_SHAPES[name]
            one, graph = compare(model, gpu, work), compare(model, gpu, work, "launched")
            figures.rows.append(
                {
                    "shape": name,
                    "gpu": gpu.name,
                    "figures": MARK,
                    "block_fits_cache": "yes" if fits_cache(model.blocks, gpu, work) else "no",
                    "limit": one.shared.limit,
                    "once_us": one.once.seconds * 1e6,
                    "shared_us": one.shared.seconds * 1e6,
                    "distinct_us": one.distinct.seconds * 1e6,
                    "gain": one.gain,
                    "graph_shared_us": graph.shared.seconds * 1e6,
                    "graph_distinct_us": graph.distinct.seconds * 1e6,
                    "graph_gain": graph.gain,
                }
            )
    for row in figures.rows:
        print(
            f"  {row['shape']:>5} {row['gpu']:<9} {row['shared_us']:6.0f} µs shared, {row['distinct_us']:6.0f} µs distinct, gain {row['gain']:.2f}× ({MARK})"
        )
    return figures
