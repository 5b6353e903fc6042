"""The table of GPUs: found however they are written, and refused with the nearest names."""

from __future__ import annotations

import pytest

from predawn.kernels.aot import TARGETS
from predawn.kernels.gpus import GPUS, UnknownGpuError, find


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
def test_each_gpu_is_found_by_its_own_name(gpu) -> None:
    assert find(gpu.name) is gpu


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("h100", "H100"),
        ("NVIDIA H100 SXM5", "H100"),
        ("h100 pcie", "H100-PCIe"),
        ("4090", "RTX-4090"),
        ("GeForce RTX 4090", "RTX-4090"),
        ("mi300x", "MI300X"),
        ("Radeon RX 7900 XTX", "RX-7900-XTX"),
        ("jetson-agx-orin", "Orin"),
    ],
)
def test_spelling_does_not_matter(written: str, name: str) -> None:
    assert find(written).name == name


def test_an_unknown_gpu_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(UnknownGpuError, match=r"no GPU 'RTX-4091' in the table; nearest: RTX-4090"):
        find("RTX-4091")


def test_a_name_like_no_other_is_refused_with_all_names() -> None:
    with pytest.raises(UnknownGpuError, match=r"known: H100, .*RX-7900-XTX"):
        find("zzzzzz")


def test_the_kernel_can_be_compiled_for_each_gpu_but_the_one_named_here() -> None:
    assert {gpu.name for gpu in GPUS if gpu.target not in TARGETS} == {"Orin"}
