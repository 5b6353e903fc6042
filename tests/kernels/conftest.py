"""One torch thread, and Triton's interpreter in place of a GPU, for all tests of `kernels/`."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest

# Triton reads it when `@triton.jit` decorates, so it must be set before any kernel is imported. Compilation ahead of time
# needs a process without it: start one with `env` lacking TRITON_INTERPRET.
os.environ["TRITON_INTERPRET"] = "1"

collect_ignore_glob = [] if find_spec("torch") else ["*"]  # the `kernels` extra is not installed


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tests are small: more threads cost more than they give, and sums would depend on the machine."""
    import torch

    torch.set_num_threads(1)
