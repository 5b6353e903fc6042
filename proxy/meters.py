"""Counters, gauges and histograms that cost a fraction of prometheus_client's, and are collected by its registry.

Only the thread of the event loop changes them, so none of them locks; a scrape in another thread may see the sum of a
histogram one observation apart from its buckets, which the next scrape repairs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Metric


class Counter:
    """Something that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        self.value += amount


class Gauge:
    """Something that goes up and down."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def set(self, value: float) -> None:
        self.value = value

    def inc(self) -> None:
        self.value += 1

    def dec(self) -> None:
        self.value -= 1


class Histogram:
    """How often which size was seen; `bounds` are inclusive upper limits."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


Meter = TypeVar("Meter", Counter, Gauge, Histogram)
Exported: TypeAlias = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


class Family(Collector, Generic[Meter]):
    """One metric: its name and labels, and a meter for each combination of label values that was asked for."""

    def __init__(
        self, name: str, help_text: str, labels: Sequence[str], make: Callable[[], Meter], registry: CollectorRegistry
    ) -> None:
        self.name = name
        """As it stands in a query; a counter's ends in `_total`."""
        self.help = help_text
        self.labels = tuple(labels)
        self.children: dict[tuple[str, ...], Meter] = {}
        self._make: Callable[[], Meter] = make
        self._example: Meter = make()
        registry.register(self)
        if not labels:
            self.of()

    @property
    def kind(self) -> str:
        return type(self._example).__name__.lower()

    @property
    def bounds(self) -> tuple[float, ...]:
        """The buckets of a histogram; empty for the others."""
        return self._example.bounds if isinstance(self._example, Histogram) else ()

    def of(self, *values: str) -> Meter:
        """The meter for these label values. Keep it where it is used often: looking it up costs more than using it."""
        child = self.children.get(values)
        if child is None:
            if len(values) != len(self.labels):
                raise ValueError(f"{self.name} takes {len(self.labels)} label values, not {len(values)}")
            child = self.children[values] = self._make()
        return child

    def describe(self) -> Iterator[Metric]:
        """The metric without samples, by which a registry refuses a second one of the same name."""
        yield self._empty()

    def collect(self) -> Iterator[Metric]:
        """The metric with the samples of this moment."""
        metric = self._empty()
        for values, child in self.children.copy().items():
            _add(metric, values, child)
        yield metric

    def _empty(self) -> Exported:
        if isinstance(self._example, Counter):
            return CounterMetricFamily(self.name, self.help, labels=self.labels)
        if isinstance(self._example, Gauge):
            return GaugeMetricFamily(self.name, self.help, labels=self.labels)
        return HistogramMetricFamily(self.name, self.help, labels=self.labels)


def _add(metric: Exported, values: tuple[str, ...], child: Counter | Gauge | Histogram) -> None:
    if not isinstance(child, Histogram):
        assert not isinstance(metric, HistogramMetricFamily)
        metric.add_metric(values, child.value)
        return
    assert isinstance(metric, HistogramMetricFamily)
    bounds = [*map(floatToGoString, child.bounds), "+Inf"]
    metric.add_metric(values, list(zip(bounds, accumulate(child.counts.copy()), strict=True)), child.total)
