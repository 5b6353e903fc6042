"""Fewer cases for every day: `make fuzz-lanes` tries each with each, the default run each at least once or twice."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import product
from typing import Any

EVERY = "PREDAWN_FUZZ_EXAMPLES" in os.environ


def thinned(first: Sequence[Any], *others: Sequence[Any], times: int = 1) -> list[tuple[Any, ...]]:
    """Each of the first with all of the others; or, every day, with `times` of them, in turn."""
    if EVERY:
        return list(product(first, *others))
    chosen: dict[tuple[Any, ...], None] = {}
    for turn in range(times):
        for number, one in enumerate(first):
            chosen[one, *(other[(number + turn) % len(other)] for other in others)] = None
    return list(chosen)
