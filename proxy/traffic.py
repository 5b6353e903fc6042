"""The meters of finished requests, looked up once for each kind of request and then only added to."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from predawn.proxy.meters import Counter, Family, Histogram

OTHER: Final = "other"
"""Stands for a model that is no alias, and for whatever else is outside of a label's fixed set."""
USUAL_CODES: Final = (200, 400, 429, 500, 502, 503, 504)
KNOWN_CODES: Final = frozenset({*map(int, HTTPStatus), 499, 529})


class TrafficFamilies(Protocol):
    """The metrics a finished request is counted in; `Metrics` has them."""

    requests: Family[Counter]
    request_duration: Family[Histogram]
    time_to_first_token: Family[Histogram]
    inter_token_latency: Family[Histogram]
    max_token_gap: Family[Histogram]
    overhead: Family[Histogram]
    tokens: Family[Counter]


class TrafficMeters:
    """The meters of one route, model, upstream and way of answering."""

    __slots__ = (
        "_cached",
        "_codes",
        "_duration",
        "_input",
        "_labels",
        "_max_gap",
        "_mean_gap",
        "_output",
        "_overhead",
        "_reasoning",
        "_requests",
        "_ttft",
    )

    def __init__(self, metrics: TrafficFamilies, route: str, model: str, upstream: str, stream: str) -> None:
        self._duration = metrics.request_duration.of(route, model, upstream, stream)
        self._ttft = metrics.time_to_first_token.of(route, model, upstream)
        self._mean_gap = metrics.inter_token_latency.of(route, model, upstream)
        self._max_gap = metrics.max_token_gap.of(route, model, upstream)
        self._overhead = metrics.overhead.of(route, stream)
        tokens = partial(metrics.tokens.of, model, upstream)
        self._input = tokens("input", "serve")
        self._output = tokens("output", "serve")
        self._cached = tokens("cached_input", "serve")
        self._reasoning = tokens("reasoning", "serve")
        self._labels = (route, model, upstream, stream)
        self._requests = metrics.requests
        self._codes: dict[int, Counter] = {}

    def observe(
        self,
        *,
        code: int,
        total_s: float,
        overhead_s: float,
        ttft_s: float | None = None,
        mean_gap_s: float | None = None,
        max_gap_s: float | None = None,
        input_tokens: int = 0,
        output_tokens: int = 0,
        cached_tokens: int = 0,
        reasoning_tokens: int = 0,
        exchange: str = "",
        at: float = 0.0,
    ) -> None:
        """Count one finished request: 1.2 µs for a stream, against 4.5 µs with prometheus_client's own.

        `exchange` and `at`, when it ended, make it an example of its buckets.
        """
        counter = self._codes.get(code)
        if counter is None:
            counter = self._code(code)
        counter.value += 1
        self._duration.observe_of(total_s, exchange, at)
        # calls to upstreams may overlap, so that their sum exceeds the whole
        self._overhead.observe_of(overhead_s if overhead_s > 0 else 0.0, exchange, at)
        if ttft_s is not None:
            self._ttft.observe_of(ttft_s, exchange, at)
        if mean_gap_s is not None:
            self._mean_gap.observe_of(mean_gap_s, exchange, at)
        if max_gap_s is not None:
            self._max_gap.observe_of(max_gap_s, exchange, at)
        self._input.value += input_tokens
        self._output.value += output_tokens
        self._cached.value += cached_tokens
        self._reasoning.value += reasoning_tokens

    def _code(self, code: int) -> Counter:
        route, model, upstream, stream = self._labels
        label = str(code) if code in KNOWN_CODES else OTHER
        counter = self._codes[code] = self._requests.of(route, model, upstream, label, stream)
        return counter

    def start(self) -> None:
        """Make the usual counters, so that panels show 0 before the first request."""
        for code in USUAL_CODES:
            self._code(code)
