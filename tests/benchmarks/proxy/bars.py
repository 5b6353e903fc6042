"""Turns samples into figures per peer, and figures into promises."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from tests.benchmarks.evidence import Bar
from tests.benchmarks.proxy.measure import Sample
from tests.benchmarks.proxy.workloads import (
    BUSY,
    FRESH,
    LARGE,
    NOOP_BESIDE,
    RATE,
    SMALL,
    SMALL_BESIDE,
    SMALL_PAIR,
    STREAMS,
    STREAMS_BESIDE,
    STREAMS_PAIR,
    TTFT,
    TTFT_BESIDE,
    TTFT_PAIR,
    Workload,
)

Measure = Callable[["Samples", str, int], float | None]


@dataclass(frozen=True, slots=True)
class Samples:
    """Valid samples of a run, found by test, peer and round."""

    by_place: Mapping[tuple[str, str, int], Sample]
    rounds: int

    @classmethod
    def of(cls, samples: Sequence[Sample], rounds: int) -> "Samples":
        return cls({(s.test, s.peer, s.round): s for s in samples if s.valid}, rounds)

    def at(self, test: str, peer: str, round_: int) -> Sample | None:
        return self.by_place.get((test, peer, round_))

    def typical(self, measure: Measure, peer: str) -> float | None:
        """The median over the rounds in which it could be measured."""
        values = [value for r in range(self.rounds) if (value := measure(self, peer, r)) is not None]
        return median(values) if values else None

    def ratio(self, measure: Measure, peer: str, other: str) -> float | None:
        """The median of the ratios within each round: both sides met the same weather."""
        pairs = [(measure(self, peer, r), measure(self, other, r)) for r in range(self.rounds)]
        ratios = [a / b for a, b in pairs if a is not None and b is not None and b > 0]
        return median(ratios) if ratios else None


def _cpu_per_request(workload: Workload) -> Measure:
    """µs of CPU per request."""

    def measure(samples: Samples, peer: str, round_: int) -> float | None:
        sample = samples.at(workload.name, peer, round_)
        return sample.cpu_us_per_request if sample else None

    return measure


def _cpu_per_chunk(workload: Workload) -> Measure:
    """µs of CPU per streamed chunk, the request's own share included."""

    def measure(samples: Samples, peer: str, round_: int) -> float | None:
        sample = samples.at(workload.name, peer, round_)
        return sample.cpu_us_per_chunk if sample else None

    return measure


def _added(workload: Workload, what: str) -> Measure:
    """ms that the peer adds to a median time."""

    def measure(samples: Samples, peer: str, round_: int) -> float | None:
        through, direct = (samples.at(workload.name, name, round_) for name in (peer, "direct"))
        if through is None or direct is None:
            return None
        here, there = through.ms(what), direct.ms(what)
        return None if here is None or there is None else here - there

    return measure


def _put_off(samples: Samples, peer: str, round_: int) -> float | None:
    """The part of a request's CPU that was put off until after the answers."""
    sample = samples.at(SMALL.name, peer, round_)
    return sample.cpu_later_us / max(1, int(sample.load["completed"])) if sample else None


cpu_small, cpu_small_pair, cpu_small_beside = map(_cpu_per_request, (SMALL, SMALL_PAIR, SMALL_BESIDE))
cpu_noop_beside = _cpu_per_request(NOOP_BESIDE)
cpu_fresh, cpu_large = map(_cpu_per_request, (FRESH, LARGE))
cpu_chunk, cpu_chunk_pair, cpu_chunk_beside = map(_cpu_per_chunk, (STREAMS, STREAMS_PAIR, STREAMS_BESIDE))
cpu_chunk_busy = _cpu_per_chunk(BUSY)
added_p50 = _added(RATE, "latency_ms")
added_ttft, added_ttft_pair, added_ttft_beside = (_added(w, "ttft_ms") for w in (TTFT, TTFT_PAIR, TTFT_BESIDE))
MEASURES: dict[str, Measure] = {
    "cpu_us_per_request_1.5kb": cpu_small,
    "cpu_us_per_request_1.5kb_put_off": _put_off,
    "cpu_us_per_request_1.5kb_in_turn": cpu_small_pair,
    "cpu_us_per_request_1.5kb_beside_another": cpu_small_beside,
    "cpu_us_per_request_1.5kb_full_lane_beside_another": cpu_noop_beside,
    "cpu_us_per_request_1.5kb_fresh_heads": cpu_fresh,
    "cpu_us_per_request_60kb": cpu_large,
    "added_p50_ms_at_50_per_s": added_p50,
    "added_ttft_p50_ms": added_ttft,
    "added_ttft_p50_ms_in_turn": added_ttft_pair,
    "added_ttft_p50_ms_beside_others": added_ttft_beside,
    "cpu_us_per_chunk": cpu_chunk,
    "cpu_us_per_chunk_in_turn": cpu_chunk_pair,
    "cpu_us_per_chunk_beside_another": cpu_chunk_beside,
    "cpu_us_per_chunk_of_128_streams": cpu_chunk_busy,
}


@dataclass(frozen=True, slots=True)
class RatioBar:
    """`peer`'s measure must be at most `bar` times `other`'s."""

    name: str
    measure: Measure
    peer: str
    other: str
    bar: float


RATIO_BARS = (
    RatioBar("CPU per request, 1.5 KB, of LiteLLM's", cpu_small, "predawn", "litellm", 1 / 40),
    RatioBar("CPU per request, 1.5 KB, of Portkey's", cpu_small, "predawn", "portkey", 1 / 9),
    RatioBar("CPU per request, 1.5 KB, of vllm-router's", cpu_small, "predawn", "vllm-router", 1 / 0.35),
    RatioBar("CPU per request, 60 KB, of vllm-router's", cpu_large, "predawn", "vllm-router", 1 / 0.6),
    RatioBar("added p50 at 50 requests/s, of LiteLLM's", added_p50, "predawn", "litellm", 0.15),
    RatioBar("added p50 at 50 requests/s, of vllm-router's", added_p50, "predawn", "vllm-router", 2.5),
    RatioBar("added TTFT p50, of vllm-router's", added_ttft, "predawn", "vllm-router", 1.8),
    RatioBar("CPU per chunk, of nginx's", cpu_chunk, "predawn", "nginx", 2.5),
    # plugins that act on a request take the full lane, so what being asked costs shows beside that lane without plugins;
    # at the same time: in turn, 12 ratios lay between 0.9 and 1.4, and 8 of these between 1.11 and 1.14
    RatioBar(
        "CPU per request with three no-op plugins, of none's", cpu_noop_beside, "predawn-noop3", "predawn-full", 1.15
    ),
)
# The fast lane's: keys, metrics and the ledger of usage, no plugin.
FAST_BARS = (
    RatioBar(
        "fast lane: CPU per request, 1.5 KB, of vllm-router's", cpu_small_pair, "predawn-keys", "vllm-router", 1 / 2
    ),
    RatioBar("fast lane: CPU per request, 1.5 KB, of nginx's", cpu_small_pair, "predawn-keys", "nginx", 1 / 0.33),
    RatioBar("fast lane: CPU per request, 1.5 KB, of LiteLLM's", cpu_small_pair, "predawn-keys", "litellm", 1 / 250),
    RatioBar("fast lane: CPU per request, 60 KB, of vllm-router's", cpu_large, "predawn-keys", "vllm-router", 1 / 1.2),
    RatioBar("fast lane: CPU per chunk of 32 streams, of nginx's", cpu_chunk_pair, "predawn-keys", "nginx", 1.5),
    RatioBar(
        "fast lane: CPU per chunk of 32 streams at the same time, of nginx's",
        cpu_chunk_beside,
        "predawn-keys",
        "nginx",
        1.5,
    ),
    RatioBar("fast lane: CPU per chunk of 128 streams, of nginx's", cpu_chunk_busy, "predawn-keys", "nginx", 1.5),
    RatioBar("fast lane: added TTFT p50, of vllm-router's", added_ttft_pair, "predawn-keys", "vllm-router", 0.6),
    RatioBar(
        "fast lane: added TTFT p50 at the same time, of vllm-router's",
        added_ttft_beside,
        "predawn-keys",
        "vllm-router",
        0.6,
    ),
    RatioBar(
        "fast lane: CPU per request with every plugin idle, of none's",
        cpu_small_beside,
        "predawn-idle",
        "predawn-bare",
        1.1,
    ),
)
ALL_BARS = (*RATIO_BARS, *FAST_BARS)
IDLE_BAR_MB, HOOK_BAR_US = 45.0, 0.3
IDLE_BARS = (
    ("memory of 1,000 idle streams", "predawn", IDLE_BAR_MB),
    ("fast lane: memory of 1,000 idle streams", "predawn-keys", 15.0),
)
BYTE_RELAYS = ("predawn", "predawn-keys", "predawn-bare", "predawn-idle", "predawn-full", "predawn-noop3")


_ONCE_A_ROUND = {cpu_small_pair: cpu_small, cpu_chunk_pair: cpu_chunk, added_ttft_pair: added_ttft}
"""What others than those that are compared closely have in place of these."""


def ratio_bars(samples: Samples, absent: Mapping[str, str]) -> dict[str, Bar]:
    """Bars against peers; a missing peer leaves its bars open, with the reason."""
    bars = {}
    for spec in ALL_BARS:
        value = samples.ratio(spec.measure, spec.peer, spec.other)
        bars[spec.name] = Bar(value, spec.bar, "x", "" if value is not None else _reason(absent, spec.peer, spec.other))
    return bars


def ratios_with(peer: str, samples: Samples) -> dict[str, float | None]:
    """What the fast lane's bars would say of another peer, as far as once a round tells."""
    return {
        spec.name.removeprefix("fast lane: "): samples.ratio(
            _ONCE_A_ROUND.get(spec.measure, spec.measure), peer, spec.other
        )
        for spec in FAST_BARS
        if spec.peer == "predawn-keys"
    }


def idle_bars(idle: Mapping[str, Any], absent: Mapping[str, str], wanted: int) -> dict[str, Bar]:
    return {name: _idle_bar(peer, bar, idle.get(peer), absent, wanted) for name, peer, bar in IDLE_BARS}


def _idle_bar(peer: str, bar: float, seen: Any, absent: Mapping[str, str], wanted: int) -> Bar:
    if seen is None:
        return Bar(None, bar, "MB", _reason(absent, peer))
    if seen["streams"] != wanted:
        return Bar(None, bar, "MB", f"only {seen['streams']} of {wanted} streams were open")
    return Bar(seen["delta_mb"], bar, "MB")


def fidelity_bar(altered: Mapping[str, Mapping[str, str]], absent: Mapping[str, str], bodies: int) -> Bar:
    missing = [name for name in BYTE_RELAYS if name not in altered]
    if missing:
        return Bar(None, 0, f"of {bodies} bodies", _reason(absent, *missing))
    return Bar(float(sum(len(altered[name]) for name in BYTE_RELAYS)), 0, f"of {bodies} bodies")


def figures(
    samples: Samples, peers: Sequence[str], idle: Mapping[str, Any], altered: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything about each peer: medians, and beneath them what was measured at each turn."""
    shown: dict[str, Any] = {}
    for peer in peers:
        own: dict[str, Any] = {name: samples.typical(measure, peer) for name, measure in MEASURES.items()}
        own["rounds"] = {
            name: [value for r in range(samples.rounds) if (value := measure(samples, peer, r)) is not None]
            for name, measure in MEASURES.items()
        }
        own["idle_streams"] = idle.get(peer)
        own["bodies_altered"] = altered.get(peer)
        shown[peer] = own
    return shown


def complaints(samples: Sequence[Sample]) -> list[str]:
    """Samples that do not count, and peers that asked the upstream less often than they were asked."""
    said = []
    for s in samples:
        place = f"{s.peer}, {s.test}, round {s.round}"
        if not s.valid:
            said.append(
                f"{place}: left out, {s.load['ok']} good, {s.load['errors']} failed, statuses {s.load['status']}"
            )
        elif s.upstream_requests is not None and s.upstream_requests < s.load["completed"]:
            said.append(f"{place}: {s.load['completed']} requests became {s.upstream_requests} upstream")
    return said


def _reason(absent: Mapping[str, str], *peers: str) -> str:
    reasons = [f"{peer}: {absent[peer]}" for peer in peers if peer in absent]
    return "; ".join(reasons) or f"not measured: {' or '.join(peers)} left out or without a valid round"
