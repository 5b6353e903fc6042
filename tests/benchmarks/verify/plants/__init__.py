"""Planted violations and clean look-alikes, drawn from a seed: what each verifier must catch, and what it must let pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from tests.benchmarks.verify.plants import arithmetic, code, constrained, forks, grounds, judged, patterns, structured
from tests.benchmarks.verify.plants.case import Case

PLANTS: Mapping[str, Callable[[Random, bool], Case]] = {
    "arithmetic": arithmetic.draw,
    "json_schema": structured.draw_json,
    "tool_call": structured.draw_call,
    "regex": patterns.draw,
    "python": code.draw,
    "grounded": grounds.draw,
    "judge": judged.draw,
    "answer_fork": forks.draw,
    "constraints": constrained.draw,
}
"""By verifier: draws a case, wrong or clean."""
