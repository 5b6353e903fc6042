"""Figures that stand in the README's sentences are those of the last runs; its tables are generated."""

from __future__ import annotations

import json
import math

import pytest
from tests.docs.pages import DOCS, ROOT

README = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())


def measured(run: str, bar: str) -> float:
    found = json.loads((DOCS / "evidence" / f"{run}.json").read_text(encoding="utf-8"))
    return float(found["bars"][bar]["value"])


def percent(value: float) -> str:
    return f"{100 * value:.2g} %"


def times(value: float) -> str:
    """Rounded down, for it is claimed."""
    return f"{math.floor(value * 10) / 10} times"


@pytest.mark.parametrize(
    ("words", "value", "run", "bar"),
    [
        ("for {} of the tokens", percent, "eval-sleep", "test-time tokens with sleep, of those without"),
        ("in {} of the time", percent, "eval-sleep", "time to the complete answer with sleep, of that without"),
        ("on one CPU core {} as fast", times, "bench-kernels", "engine at batch 1"),
        ("and {} with 16 requests", times, "bench-kernels", "engine at 16 requests arriving"),
        ("1,000 idle streams take {:.0f} MB", float, "bench-proxy", "memory of 1,000 idle streams"),
    ],
)
def test_a_figure_of_the_readme_is_the_one_that_was_measured(words, value, run, bar):
    assert words.format(value(measured(run, bar))) in README


def test_sleep_pays_from_the_question_that_the_readme_names():
    even = measured("eval-sleep", "break-even at t = 10, prompts priced too")

    assert "sleeping pays from the second question about a context on" in README
    assert math.ceil(even) == 2
    assert measured("eval-sleep", "accuracy with sleep over without") >= 0
    assert measured("bench-proxy", "bodies that reach the upstream altered") == 0
