"""What can be known of the GPU benchmark without a GPU."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.benchmarks.evidence import CHECKOUT

torch = pytest.importorskip("torch")

from tests.benchmarks.kernels import gpu  # noqa: E402

from predawn.kernels import reference  # noqa: E402
from predawn.kernels.known_shapes import parse_shape  # noqa: E402


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_it_needs_and_fails() -> None:
    finished = subprocess.run(
        [sys.executable, "tests/benchmarks/kernels/gpu.py"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )

    assert finished.returncode == 1
    assert finished.stderr.startswith("bench-gpu: no GPU is visible to torch")
    assert "Needed: an NVIDIA GPU" in finished.stderr
    assert finished.stdout == ""


@pytest.mark.parametrize(
    "kind", ["dim=64,heads=4,kv_heads=2,ffn=96,layers=2,repeat=2", "dim=48,heads=3,kv_heads=1,ffn=64,layers=3,repeat=1"]
)
def test_the_eager_code_it_compares_with_is_the_reference(kind: str) -> None:
    case = gpu.make(parse_shape(kind), "shared", 3, 37, "cpu", torch.float32)
    where = (case.k.clone(), case.v.clone(), case.pages, case.positions, case.cos, case.sin)
    expected = reference.decode_step(case.x, case.weights, case.shape, *where)

    torch.testing.assert_close(gpu.eager_step(case), expected)
    torch.testing.assert_close((case.k, case.v), where[:2])


def test_the_bars_compare_the_persistent_kernel_with_eager_code_and_distinct_blocks() -> None:
    times = {("shared", "persistent"): 10.0, ("shared", "eager graph"): 25.0, ("distinct", "persistent"): 15.0}
    rows = [
        {"shape": "125M", "batch": 1, "context": 512, "model": model, "way": way, "us": us}
        for (model, way), us in times.items()
    ]

    assert [bar.value for bar in gpu.bars(rows).values()] == [2.5, 1.5]
