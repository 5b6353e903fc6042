"""The meters of finished requests, looked up once for each kind of request and then only added to."""

from __future__ import annotations

from bisect import bisect_left
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from predawn.proxy.meters import Counter, Family, Histogram
    from predawn.proxy.tenants import TenantMeters

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
        "_codes",
        "_labels",
        "_requests",
        "duration",
        "max_gap",
        "mean_gap",
        "overhead",
        "tokens",
        "ttft",
    )

    def __init__(self, metrics: TrafficFamilies, route: str, model: str, upstream: str, stream: str) -> None:
        self.duration = metrics.request_duration.of(route, model, upstream, stream)
        self.ttft = metrics.time_to_first_token.of(route, model, upstream)
        self.mean_gap = metrics.inter_token_latency.of(route, model, upstream)
        self.max_gap = metrics.max_token_gap.of(route, model, upstream)
        self.overhead = metrics.overhead.of(route, stream)
        tokens = partial(metrics.tokens.of, model, upstream)
        kinds = ("input", "output", "cached_input", "reasoning")
        self.tokens = tuple(tokens(kind, "serve") for kind in kinds)
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
        self.requests(code).value += 1
        self.duration.observe_of(total_s, exchange, at)
        # calls to upstreams may overlap, so that their sum exceeds the whole
        self.overhead.observe_of(overhead_s if overhead_s > 0 else 0.0, exchange, at)
        if ttft_s is not None:
            self.ttft.observe_of(ttft_s, exchange, at)
        if mean_gap_s is not None:
            self.mean_gap.observe_of(mean_gap_s, exchange, at)
        if max_gap_s is not None:
            self.max_gap.observe_of(max_gap_s, exchange, at)
        tokens = self.tokens
        tokens[0].value += input_tokens
        tokens[1].value += output_tokens
        tokens[2].value += cached_tokens
        tokens[3].value += reasoning_tokens

    def requests(self, code: int) -> Counter:
        """The counter of requests that ended with this status."""
        counter = self._codes.get(code)
        if counter is None:
            route, model, upstream, stream = self._labels
            label = str(code) if code in KNOWN_CODES else OTHER
            counter = self._codes[code] = self._requests.of(route, model, upstream, label, stream)
        return counter

    def start(self) -> None:
        """Make the usual counters, so that panels show 0 before the first request."""
        for code in USUAL_CODES:
            self.requests(code)


class AnswerMeters:
    """All that is counted of a plain request which was answered well, by one call."""

    __slots__ = (
        "_call",
        "_duration",
        "_max_gap",
        "_mean_gap",
        "_overhead",
        "_requests",
        "_tenant_duration",
        "_tenant_requests",
        "_tenant_tokens",
        "_tenant_ttft",
        "_tokens",
        "_ttft",
    )

    def __init__(self, traffic: TrafficMeters, tenant: TenantMeters, call: Histogram) -> None:
        self._requests = traffic.requests(200)
        self._duration = traffic.duration
        self._overhead = traffic.overhead
        self._tokens = traffic.tokens
        self._ttft, self._mean_gap, self._max_gap = traffic.ttft, traffic.mean_gap, traffic.max_gap
        self._tenant_requests = tenant.requests(200)
        self._tenant_duration = tenant.duration
        self._tenant_tokens = tenant.tokens
        self._tenant_ttft = tenant.ttft
        self._call = call
        assert traffic.duration.bounds == tenant.duration.bounds
        assert traffic.ttft.bounds == tenant.ttft.bounds

    def observe(  # noqa: PLR0917 - once per request: keywords cost 0.3 us
        self,
        total_s: float,
        overhead_s: float,
        call_s: float,
        usage: tuple[int, int, int, int],
        exchange: str,
        at: float,
    ) -> None:
        """Count one: 0.7 µs, against 2.2 by `TrafficMeters`, `TenantMeters` and the call's histogram.

        `usage`: prompt, output, cached and reasoning tokens.
        """
        self._requests.value += 1
        self._tenant_requests.value += 1
        meter, tenant = self._duration, self._tenant_duration
        index = bisect_left(meter.bounds, total_s)
        meter.counts[index] += 1
        meter.total += total_s
        meter.exemplars[index] = (exchange, total_s, at)
        tenant.counts[index] += 1
        tenant.total += total_s
        meter = self._call
        index = bisect_left(meter.bounds, call_s)
        meter.counts[index] += 1
        meter.total += call_s
        meter.exemplars[index] = (exchange, call_s, at)
        self._overhead.observe_of(overhead_s if overhead_s > 0 else 0.0, exchange, at)
        prompt, output, cached, reasoning = usage
        meters = self._tokens
        meters[0].value += prompt
        meters[1].value += output
        if cached:
            meters[2].value += cached
        if reasoning:
            meters[3].value += reasoning
        meters = self._tenant_tokens
        meters[0].value += prompt
        meters[1].value += output

    def observe_stream(
        self, ttft_s: float, mean_gap_s: float | None, max_gap_s: float, exchange: str, at: float
    ) -> None:
        """Count besides, of an answer that streamed, when its bytes came."""
        meter, tenant = self._ttft, self._tenant_ttft
        index = bisect_left(meter.bounds, ttft_s)
        meter.counts[index] += 1
        meter.total += ttft_s
        meter.exemplars[index] = (exchange, ttft_s, at)
        tenant.counts[index] += 1
        tenant.total += ttft_s
        if mean_gap_s is not None:
            self._mean_gap.observe_of(mean_gap_s, exchange, at)
        self._max_gap.observe_of(max_gap_s, exchange, at)
