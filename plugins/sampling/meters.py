"""The meters of sampling, all created at 0; `proxy.metrics` declares what they count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, get_args

from predawn.plugins.sampling.settings import StrategyName
from predawn.plugins.sampling.strategies.protocol import WHYS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from predawn.plugins.sampling.result import SamplingResult
    from predawn.proxy.metrics import Metrics

OUTCOMES: Final = ("selected", "discarded", "cancelled", "failed")
STRATEGIES: Final[tuple[str, ...]] = tuple(name for name in get_args(StrategyName) if name != "off")
LATE: Final = frozenset({"exhausted", "failed"})
"""Ends that are not early."""


class SamplingMeters:
    """Where sampling counts."""

    def __init__(self, metrics: Metrics) -> None:
        self._drawn = {name: metrics.samples_drawn.of(name) for name in STRATEGIES}
        self._samples = {(name, end): metrics.samples.of(name, end) for name in STRATEGIES for end in OUTCOMES}
        self._agreement = {name: metrics.sample_agreement.of(name) for name in STRATEGIES}
        self._cancelled = {name: metrics.sample_tokens_cancelled.of(name) for name in STRATEGIES}
        self._early = {
            (name, why): metrics.early_stops.of(name, why) for name in STRATEGIES for why in WHYS if why not in LATE
        }

    def ended(self, result: SamplingResult, outcomes: Mapping[str, int], cancelled_tokens: int, allowed: int) -> None:
        """A request is answered: `outcomes` says how many samples ended in which way."""
        name = result.strategy
        self._drawn[name].observe(result.drawn)
        for outcome, count in outcomes.items():
            if count:
                self._samples[name, outcome].inc(count)
        if result.agreement is not None:
            self._agreement[name].observe(result.agreement)
        if cancelled_tokens:
            self._cancelled[name].inc(cancelled_tokens)
        early = self._early.get((name, result.why))
        if early is not None and (result.drawn < allowed or outcomes.get("cancelled", 0)):
            early.inc()
