"""What vendors say of their GPUs, and what they do not say and is assumed here.

Memory bandwidth, cache size, multiprocessors and dense bf16 rate (fp32 sums) are from data sheets and architecture
papers of the vendors. How fast the last-level cache feeds all multiprocessors is not published for most; `cache_tb_s`
is an **assumption** of this project, set low. Nothing here was measured.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as the roofline sees it. Bandwidths in terabytes, cache in megabytes, both decimal."""

    name: str
    target: str
    """What `predawn kernels compile` calls it."""
    memory_tb_s: float
    cache_mb: float
    """The last cache that all multiprocessors share: L2, or AMD's Infinity Cache."""
    cache_tb_s: float
    """Sustained read rate of that cache by all multiprocessors together; assumed."""
    tflops: float
    multiprocessors: int
    note: str = ""

    @property
    def fetches_ahead(self) -> bool:
        """Whether the kernel can ask for lines to be brought into the cache; it has no such instruction on AMD."""
        return self.target.startswith("sm_")


GPUS: tuple[Gpu, ...] = (
    Gpu("H100", "sm_90", 3.35, 50, 5.5, 989, 132, "SXM5, 80 GB"),
    Gpu("H100-PCIe", "sm_90", 2.0, 50, 5.0, 756, 114, "80 GB"),
    Gpu("H200", "sm_90", 4.8, 50, 5.5, 989, 132, "SXM5, 141 GB"),
    Gpu("B200", "sm_100", 8.0, 126, 9.0, 2250, 148, "cache size as drivers report it; not in the data sheet"),
    Gpu("A100", "sm_80", 2.039, 40, 4.0, 312, 108, "SXM4, 80 GB"),
    Gpu("A100-40G", "sm_80", 1.555, 40, 4.0, 312, 108, "SXM4, 40 GB"),
    Gpu("A10", "sm_86", 0.6, 6, 1.5, 125, 72),
    Gpu("L4", "sm_89", 0.3, 48, 2.0, 121, 58),
    Gpu("L40S", "sm_89", 0.864, 96, 4.5, 362, 142),
    Gpu("RTX-3090", "sm_86", 0.936, 6, 2.0, 71, 82),
    Gpu("RTX-4060", "sm_89", 0.272, 24, 1.5, 30, 24),
    Gpu("RTX-4090", "sm_89", 1.008, 72, 5.0, 165, 128),
    Gpu("RTX-5090", "sm_120", 1.792, 96, 6.5, 210, 170),
    Gpu("Orin", "sm_87", 0.205, 4, 0.8, 42.5, 16, "Jetson AGX Orin 64 GB"),
    Gpu("MI300X", "gfx942", 5.3, 256, 10.0, 1307, 304, "cache: Infinity Cache, 17.2 TB/s at its peak"),
    Gpu("MI250X", "gfx90a", 1.6, 8, 3.5, 191.5, 110, "one of its two dies"),
    Gpu("RX-7900-XTX", "gfx1100", 0.96, 96, 2.5, 123, 96, "cache: Infinity Cache"),
)


class UnknownGpuError(ValueError):
    """No such GPU in the table; the message names the nearest ones."""


def find(name: str) -> Gpu:
    """The GPU of that name, however it is written: `h100`, `RTX 4090`, `4090`, `nvidia-a100`."""
    wanted = _plain(name)
    by_name = {_plain(gpu.name): gpu for gpu in GPUS}
    if wanted in by_name:
        return by_name[wanted]
    near = difflib.get_close_matches(wanted, by_name, n=3, cutoff=0.4)
    known = ", ".join(by_name[key].name for key in near) if near else ", ".join(gpu.name for gpu in GPUS)
    raise UnknownGpuError(f"no GPU {name!r} in the table; {'nearest' if near else 'known'}: {known}")


def _plain(name: str) -> str:
    letters = re.sub(r"[^a-z0-9]", "", name.lower())
    return re.sub(r"nvidia|amd|geforce|radeon|instinct|jetson|agx|rtx|rx(?=\d)|sxm\d?", "", letters)
