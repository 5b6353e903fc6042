"""Which way a device runs the step."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from predawn.kernels.shared_block import choose
from predawn.kernels.shared_block.execution import for_gpu
from predawn.kernels.shared_block.tiles import TILES


def test_a_cpu_runs_plain_torch_and_says_why():
    chosen = choose(torch.device("cpu"))

    assert (chosen.mode, chosen.reason) == ("eager", "no Triton kernels on cpu")
    assert choose(torch.device("cpu")) is chosen


def gpu(name: str, major: int, minor: int, programs: int) -> SimpleNamespace:
    return SimpleNamespace(name=name, major=major, minor=minor, multi_processor_count=programs)


@pytest.mark.parametrize(
    ("properties", "target"),
    [
        (gpu("H100", 9, 0, 132), "sm_90"),
        (gpu("RTX 4090", 8, 9, 128), "sm_89"),
        (gpu("B300", 10, 3, 148), "sm_100"),
    ],
    ids=["H100", "RTX 4090", "B300"],
)
def test_a_known_gpu_runs_one_cooperative_launch_with_a_program_per_multiprocessor(properties, target):
    chosen = for_gpu(properties, amd=False)

    assert (chosen.mode, chosen.prefetch) == ("persistent", True)
    assert chosen.tiles == TILES[target]
    assert chosen.programs == properties.multi_processor_count


def test_an_amd_gpu_runs_a_launch_per_phase():
    chosen = for_gpu(SimpleNamespace(name="MI300X", gcnArchName="gfx942:sramecc+:xnack-"), amd=True)

    assert (chosen.mode, chosen.tiles, chosen.prefetch) == ("phases", TILES["gfx942"], False)


def test_a_gpu_without_tile_sizes_runs_plain_torch_and_is_named():
    chosen = for_gpu(gpu("V100", 7, 0, 80), amd=False)

    assert (chosen.mode, chosen.reason) == ("eager", "no tile sizes for sm_70 (V100)")


def test_the_package_is_imported_without_triton():
    code = "import sys; sys.modules['triton'] = None; import predawn.kernels.shared_block"
    done = subprocess.run([sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}\n{code}"], check=False)

    assert done.returncode == 0
