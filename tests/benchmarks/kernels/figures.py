"""What one part of the benchmark hands over."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.benchmarks.evidence import Bar


@dataclass(frozen=True, slots=True)
class AtLeast(Bar):
    """A promise the other way round: `value` must reach `bar`."""

    at_least: bool = True


@dataclass(slots=True)
class Figures:
    """Rows as they go into the CSV and the evidence, and the bars they are held to."""

    rows: list[Mapping[str, Any]] = field(default_factory=list)
    """Same keys in each row. Text first, then numbers with their unit in the key."""
    bars: dict[str, Bar] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    seeds: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    """More for the evidence file, such as every round's value."""
