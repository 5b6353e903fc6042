"""Compilation ahead of time: for every target, without a GPU, and without spills where that was seen.

What a compiler makes of a kernel changes from version to version. Figures are asserted for the version that constraints.txt pins.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton")

from predawn.kernels import aot  # noqa: E402
from predawn.kernels.known_shapes import KNOWN_SHAPES  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
PINNED = "3.7.1"
WIDEST = 3
"""The phase with most weights in flight: gate and up at once."""
NVIDIA = ("sm_80", "sm_89", "sm_90", "sm_100", "sm_120")
pinned = pytest.mark.skipif(triton.__version__ != PINNED, reason=f"figures are those of triton {PINNED}")


@cache
def compiled(
    *targets: str, phases: tuple[int, ...] = (-1, WIDEST), dtype: str = "bf16"
) -> dict[tuple[str, int], dict[str, Any]]:
    """What `predawn kernels compile` says, in a process of its own: this one has the interpreter."""
    command = ["kernels", "compile", "--json", "--shape", "125M", "--dtype", dtype]
    command += ["--target", *targets, "--phase", *map(str, phases)]
    finished = subprocess.run(
        [sys.executable, "-P", "-m", "predawn.proxy.cli", *command],
        env={key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"} | {"PYTHONPATH": str(ROOT / ".src")},
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    return {(each["target"], each["phase"]): each for each in json.loads(finished.stdout)}


def all_nvidia() -> dict[tuple[str, int], dict[str, Any]]:
    return compiled(*NVIDIA)


@pinned
@pytest.mark.parametrize("phase", [-1, WIDEST])
@pytest.mark.parametrize("target", NVIDIA)
def test_nothing_spills_on_nvidia(target: str, phase: int) -> None:
    found = all_nvidia()[target, phase]

    assert found["spill_bytes"] == 0
    assert "LDL" not in found["instructions"]
    assert 32 <= found["registers"] <= 255


@pinned
def test_nothing_spills_to_memory_on_amd() -> None:
    for found in compiled("gfx942").values():
        assert found["spill_bytes"] == 0
        assert found["registers"] <= 256


@pinned
@pytest.mark.parametrize("target", NVIDIA)
def test_a_program_fits_the_shared_memory_of_its_multiprocessor(target: str) -> None:
    most = {"sm_80": 163, "sm_89": 99, "sm_90": 227, "sm_100": 227, "sm_120": 99}[target] * 1024

    assert all_nvidia()[target, -1]["shared_bytes"] <= most


@pytest.mark.parametrize("target", NVIDIA)
def test_products_run_on_tensor_cores_and_weights_arrive_asynchronously(target: str) -> None:
    for phase in (-1, WIDEST):
        instructions = all_nvidia()[target, phase]["instructions"]

        assert instructions["HMMA"] > 0
        assert instructions["LDGSTS"] > 0


@pytest.mark.parametrize("target", NVIDIA)
def test_only_the_persistent_kernel_prefetches_and_waits_for_others(target: str) -> None:
    whole, phase = (all_nvidia()[target, number]["instructions"] for number in (-1, WIDEST))

    assert whole["PREFETCH"] >= 4  # four matrices of the next block
    assert whole["ptx:prefetch"] == whole["PREFETCH"]
    assert whole["ATOMG"] > 0
    assert {"PREFETCH", "ATOMG"} & set(phase) == set()


def test_no_eviction_policy_is_claimed_that_the_binary_does_not_have() -> None:
    """Triton drops the policy of a load that it pipelines, so the kernel asks for none, and nothing may say that weights are pinned."""
    found = {name for each in all_nvidia().values() for name in each["instructions"]}

    assert found & {"LDG.EL", "LDG.EF", "ptx:evict_last", "ptx:evict_first"} == set()


def test_the_matrix_cores_of_amd_are_used() -> None:
    assert all(each["instructions"]["MFMA"] > 0 for each in compiled("gfx942").values())


def test_the_version_pinned_here_is_that_of_the_constraints() -> None:
    pin = re.search(r"^triton==(\S+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    if pin is None:
        pytest.skip("constraints.txt does not pin triton")

    assert pin[1] == PINNED


def test_every_target_has_tile_sizes() -> None:
    for job in aot.jobs(aot.TARGETS, [KNOWN_SHAPES["125M"]], ["bf16", "fp32"]):
        assert job.tiles().warps in {1, 2, 4, 8, 16}


def test_warps_and_stages_can_be_overridden() -> None:
    (job,) = aot.jobs(["sm_90"], [KNOWN_SHAPES["125M"]], ["bf16"], [-1], warps=8, stages=2)

    assert (job.tiles().warps, job.tiles().stages) == (8, 2)


def test_jobs_are_all_combinations_in_order() -> None:
    wanted = aot.jobs(["sm_80", "gfx942"], [KNOWN_SHAPES["125M"]], ["bf16", "fp16"], [-1, 0])

    assert [aot.describe(job) for job in wanted] == [
        "sm_80 125M bf16 persistent", "sm_80 125M bf16 phase 0", "sm_80 125M fp16 persistent", "sm_80 125M fp16 phase 0",
        "gfx942 125M bf16 persistent", "gfx942 125M bf16 phase 0", "gfx942 125M fp16 persistent", "gfx942 125M fp16 phase 0",
    ]  # fmt: skip


def test_an_unknown_target_is_refused_with_the_nearest() -> None:
    with pytest.raises(aot.TargetError, match=r"no target 'sm_91'; nearest: sm_90"):
        aot.jobs(["sm_91"], [KNOWN_SHAPES["125M"]], ["bf16"])


def test_an_unknown_phase_is_refused() -> None:
    with pytest.raises(aot.TargetError, match=r"no phase 7; there are -1, 0, 1, 2, 3, 4"):
        aot.jobs(["sm_90"], [KNOWN_SHAPES["125M"]], ["bf16"], [7])
