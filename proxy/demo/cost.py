"""What one request cost, in lines for a terminal: from its ledger and from the metrics."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_SHOWN = (
    "predawn_requests_total",
    "predawn_tokens_total",
    "predawn_time_to_first_token_seconds_sum",
    "predawn_request_duration_seconds_sum",
    "predawn_upstream_duration_seconds_sum",
    "predawn_overhead_seconds_sum",
)
_SAMPLE = re.compile(r"^(\w+)(\{.*\})? ([-+.\deE]+|NaN)$")


def ledger_lines(ledger: Mapping[str, Any]) -> list[str]:
    """The ledger of an exchange as aligned rows."""
    return [f"  {name:<18}{value:>12}  {note}".rstrip() for name, value, note in _rows(ledger)]


def _rows(ledger: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    estimated = "counted by chunks: the upstream reported none" if ledger.get("estimated") else ""
    yield "prompt tokens", _count(ledger, "prompt"), f"{_count(ledger, 'cached_prompt')} of them cached"
    yield "output tokens", _count(ledger, "output"), estimated
    if ledger.get("reasoning"):
        yield "reasoning tokens", _count(ledger, "reasoning"), "part of the output"
    yield "first token", _time(ledger.get("first_token_s")), ""
    yield "total", _time(ledger.get("total_s")), f"{_time(ledger.get('upstream_s'))} of it spent in the model"
    yield "plugins", _time(ledger.get("plugin_s")), ""


def overhead_line(samples: Mapping[str, float]) -> str:
    """What the proxy itself added, from the metric that measures it."""
    added = [value for name, value in samples.items() if name.startswith("predawn_overhead_seconds_sum")]
    return f"  {'added by Predawn':<18}{_time(sum(added)) if added else 'unknown':>12}"


def samples_of(exposition: str) -> dict[str, float]:
    """The samples of a Prometheus text, by name and labels."""
    found = (_SAMPLE.match(line) for line in exposition.splitlines())
    return {match[1] + (match[2] or ""): float(match[3]) for match in found if match}


def metric_lines(samples: Mapping[str, float]) -> list[str]:
    """The samples that the request moved, in the order of its way through the proxy."""
    return [f"  {name} {_figure(samples[name])}" for name in _moved(samples)]


def _moved(samples: Mapping[str, float]) -> Iterable[str]:
    for shown in _SHOWN:
        yield from (name for name in samples if name.split("{")[0] == shown and samples[name])


def _count(ledger: Mapping[str, Any], name: str) -> str:
    return str(ledger.get(name, "unknown"))


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    return f"{seconds * 1e3:.2f} ms" if seconds < 0.1 else f"{seconds * 1e3:.0f} ms"


def _figure(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")
