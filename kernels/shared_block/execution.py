"""Which way a device runs the decode step, and why: decided once per device, shown in the metrics."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal

import torch

from predawn.kernels.shared_block.tiles import TILES, Tiles, tiles_for

Mode = Literal["eager", "phases", "persistent"]


@dataclass(frozen=True, slots=True)
class Execution:
    """One way to run the decode step."""

    mode: Mode
    """plain torch; a launch per phase; or one cooperative launch for the whole step"""
    reason: str
    """for people: why this device gets this mode"""
    tiles: Tiles | None = None
    programs: int = 1
    """of the persistent launch: one per multiprocessor"""
    prefetch: bool = False
    """whether the persistent launch asks for the next block ahead of time"""
    interpreted: bool = False
    """Triton's interpreter runs the kernel, on tensors in ordinary memory"""


def interpreter(mode: Mode = "phases") -> Execution:
    """The kernel as Triton's interpreter runs it, for tests; needs `TRITON_INTERPRET=1` before triton is imported."""
    return Execution(mode, "Triton's interpreter, for tests", TILES["interpreter"], interpreted=True)


@cache
def choose(device: torch.device) -> Execution:
    """The way for this device: the fastest that it can be relied on to run; plain torch where there is no other."""
    if device.type != "cuda":
        return Execution("eager", f"no Triton kernels on {device.type}")
    if find_spec("triton") is None:
        return Execution("eager", "triton is not installed")
    return for_gpu(torch.cuda.get_device_properties(device), amd=torch.version.hip is not None)


def for_gpu(properties: Any, *, amd: bool) -> Execution:
    """The way for a GPU with these properties (`torch.cuda.get_device_properties`)."""
    target = properties.gcnArchName.partition(":")[0] if amd else f"sm_{properties.major}{properties.minor}"
    tiles = tiles_for(target)
    if tiles is None:
        return Execution("eager", f"no tile sizes for {target} ({properties.name})")
    if amd:
        # an MI300's grid barrier has eight L2 caches to bring together: in theory it does, but nobody has tried
        return Execution("phases", f"{target}: a launch per phase", tiles)
    programs: int = properties.multi_processor_count
    reason = f"{target}: one cooperative launch of {programs} programs"
    return Execution("persistent", reason, tiles, programs, prefetch=True)
