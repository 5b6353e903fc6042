"""The grid barrier, with programs that really run at the same time."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks processes that share memory")


@pytest.fixture(scope="module")
def race() -> dict[str, float]:
    """What three processes, a program each, made of one step."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.shared_block.race"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / ".src"), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_programs_that_run_at_the_same_time_make_the_same_bits_as_one(race):
    assert race["identical"]


def test_without_the_barrier_the_result_is_wrong(race):
    assert math.isnan(race["error_without"])
