"""What the metrics have counted since the start, in the few sums that the live page shows. No metric is its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from predawn.proxy.meters import Counter, Gauge, Histogram
from predawn.proxy.metrics import families

if TYPE_CHECKING:
    from predawn.proxy.meters import Family
    from predawn.proxy.metrics import Metrics

SUMS = {
    "tokens_saved": "predawn_context_tokens_saved_total",
    "context_uses": "predawn_context_uses_total",
    "samples": "predawn_samples_total",
    "early_stops": "predawn_early_stops_total",
    "checks": "predawn_verifier_checks_total",
    "interventions": "predawn_verifier_interventions_total",
}
HISTOGRAMS = {
    "first_token": "predawn_time_to_first_token_seconds",
    "duration": "predawn_request_duration_seconds",
    "overhead": "predawn_overhead_seconds",
}


class Totals:
    """Reads the metrics of one process; what it does not find counts as nothing."""

    def __init__(self, metrics: Metrics) -> None:
        self._postponed = metrics.postponed
        self._families: dict[str, Family[Any]] = {family.name: family for family in families(metrics)}

    def read(self) -> dict[str, Any]:
        """Counts since the process began; the page tells rates from two of them."""
        self._postponed.settle()
        classes = {"ok": 0.0, "client": 0.0, "server": 0.0}
        for labels, value in self._values("predawn_requests_total"):
            code = labels.get("code", "")
            classes["ok" if code.startswith(("2", "3")) else "client" if code.startswith("4") else "server"] += value
        tokens: dict[str, float] = {}
        for labels, value in self._values("predawn_tokens_total"):
            if value:
                kind = f"{labels.get('phase', '')}.{labels.get('type', '')}"
                tokens[kind] = tokens.get(kind, 0) + value
        return {
            "requests": classes,
            "tokens": tokens,
            **{name: sum(value for _, value in self._values(metric)) for name, metric in SUMS.items()},
            "histograms": {name: self._merged(metric) for name, metric in HISTOGRAMS.items()},
        }

    def _values(self, metric: str) -> Iterator[tuple[dict[str, str], float]]:
        family = self._families.get(metric)
        if family is None:
            return
        for values, child in family.children.items():
            if isinstance(child, (Counter, Gauge)):
                yield dict(zip(family.labels, values, strict=True)), child.value

    def _merged(self, metric: str) -> dict[str, Any]:
        """The buckets of all children together."""
        family = self._families.get(metric)
        bounds = family.bounds if family is not None else ()
        counts = [0] * (len(bounds) + 1)
        for child in family.children.values() if family is not None else ():
            if isinstance(child, Histogram):
                counts = [one + other for one, other in zip(counts, child.counts, strict=True)]
        return {"bounds": bounds, "counts": counts}
