"""A block run twice in a row against two blocks, by block size, with nothing but torch.

A block is one fp32 matrix and a pass one `torch.mv`: decoding in its purest form, bound by moving weights. Each order does the same
number of products; only which matrix each uses differs:

- `distinct`: always the next one
- `shared R=2`, `R=4`: each twice, or four times, in a row
- `cyclic R=2`: all of half as many, and then all of them again: the same sharing in the wrong order
- `shared R=1` is `distinct` measured once more: how much of a difference is noise

The orders take turns within each round, so that what else the machine does hits all of them.
"""

import os
import statistics
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from tests.benchmarks.kernels.figures import AtLeast, Figures

# Without huge pages, address translation hides part of what the caches give.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

BLOCK_MB = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.2, 7.1, 14.2)
SMALL_MB = 1.0
BAR = 1.35
WIDTH = 1152
POOL_MB = 1200
"""More than any last-level cache; blocks are only reused where the order says so."""
MOST_BLOCKS = 800
ORDERS = ("distinct", "shared R=1", "shared R=2", "shared R=4", "cyclic R=2")


def order(name: str, blocks: int) -> list[int]:
    """Which block each of `blocks` passes uses; `blocks` is a multiple of four."""
    kind, _, repeat = name.partition(" R=")
    if kind == "cyclic":
        return [place % (blocks // int(repeat)) for place in range(blocks)]
    return [place // int(repeat or 1) for place in range(blocks)]


def turns(names: Sequence[str], round_: int) -> Iterator[str]:
    """The names, starting elsewhere in each round."""
    start = round_ % len(names)
    yield from (*names[start:], *names[:start])


def seconds_by_order(megabytes: float, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each order in each round, after one that is not counted."""
    import torch

    rows = max(8, int(megabytes * 1e6 / 4 / WIDTH))
    count = min(MOST_BLOCKS, int(POOL_MB / megabytes)) // 4 * 4
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(WIDTH, generator=generator)
    pool = torch.empty(count, rows, WIDTH).fill_(0.5)
    out = torch.empty(rows)
    plans = {name: [pool[block] for block in order(name, count)] for name in ORDERS}
    took: dict[str, list[float]] = {name: [] for name in ORDERS}
    for round_ in range(rounds + 1):
        for name in turns(ORDERS, round_):
            began = time.process_time()
            for block in plans[name]:
                torch.mv(block, x, out=out)
            if round_:
                took[name].append(time.process_time() - began)
    return took


def gains(took: dict[str, list[float]], name: str) -> list[float]:
    """How many times faster than distinct blocks, in each round, ascending."""
    return sorted(distinct / own for distinct, own in zip(took["distinct"], took[name], strict=True))


def cache_sizes() -> dict[str, str]:
    """This CPU's caches as Linux tells them; empty where it does not."""
    folders = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"))
    return {
        f"L{(folder / 'level').read_text().strip()} {(folder / 'type').read_text().strip().lower()}": (folder / "size")
        .read_text()
        .strip()
        for folder in folders
        if (folder / "size").exists()
    }


def run(rounds: int) -> Figures:
    """All sizes. The bar is the worst median of blocks of at most 1 MB, at R=2."""
    import torch

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    figures = Figures(settings={"rounds": rounds, "width": WIDTH, "pool_mb": POOL_MB, "threads": 1, "dtype": "fp32"})
    figures.settings["caches"] = cache_sizes()
    figures.seeds["vector"] = 0
    for megabytes in BLOCK_MB:
        took = seconds_by_order(megabytes, rounds)
        count = min(MOST_BLOCKS, int(POOL_MB / megabytes)) // 4 * 4
        row: dict[str, float] = {"block_mb": megabytes}
        row["distinct_gb_per_s"] = count * megabytes / 1e3 / statistics.median(took["distinct"])
        for name in ORDERS[1:]:
            key = name.replace(" ", "_").replace("=", "").lower()
            found = gains(took, name)
            low, _, high = statistics.quantiles(found, n=4) if len(found) > 1 else found * 3
            row |= {f"{key}_gain": statistics.median(found), f"{key}_low": low, f"{key}_high": high}
        figures.rows.append(row)
        print(
            f"  {megabytes:5.1f} MB: "
            + ", ".join(f"{name} {statistics.median(gains(took, name)):.2f}×" for name in ORDERS[1:]),
            flush=True,
        )
    small = [row["shared_r2_gain"] for row in figures.rows if row["block_mb"] <= SMALL_MB]
    figures.bars["immediate sharing R=2, blocks up to 1 MB"] = AtLeast(min(small), BAR, "× distinct blocks")
    assert all(one["block_mb"] < other["block_mb"] for one, other in pairwise(figures.rows))
    return figures
