"""The meters of sleep, all created at 0; `proxy.metrics` declares what they count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from predawn.plugins.sleep.gate import REASONS
from predawn.plugins.sleep.orders import KINDS

if TYPE_CHECKING:
    from predawn.plugins import Exchange
    from predawn.plugins.sleep.contexts import Use
    from predawn.plugins.sleep.index import Index
    from predawn.plugins.sleep.stages import Ended
    from predawn.proxy.meters import Counter
    from predawn.proxy.metrics import Metrics

OUTCOMES: Final = ("done", "accepted", "rejected", "empty", "failed", "deferred", "superseded")
LOOKUPS: Final = ("hit", "stale", "miss", "expired", "skipped")
USES: Final = ("notes", "hint", "served")
DISCOVERIES: Final = ("kept", "evicted", "refused")
BACKLOG: Final = ("candidate", "active", "deferred")


class SleepMeters:
    """Where sleep counts."""

    def __init__(self, metrics: Metrics, places: Iterable[str]) -> None:
        self._metrics = metrics
        self._lookups: dict[str, Counter] = {result: metrics.context_lookups.of(result) for result in LOOKUPS}
        self._seen: dict[str, int] = dict.fromkeys(LOOKUPS, 0)
        self._uses = {kind: metrics.context_uses.of(kind) for kind in USES}
        self._backlog = {kind: metrics.sleep_backlog.of(kind) for kind in BACKLOG}
        self._gates = {place: metrics.sleep_gate_open.of(place) for place in places}
        self._discoveries = {result: metrics.context_discoveries.of(result) for result in DISCOVERIES}
        for kind in KINDS:
            metrics.sleep_job_duration.of(kind)
            for outcome in OUTCOMES:
                metrics.sleep_jobs.of(kind, outcome)
        for reason in REASONS:
            metrics.sleep_gate_closed.of(reason)

    def skipped(self) -> None:
        """A request that did not want to be looked up."""
        self._lookups["skipped"].inc()

    def used(self, use: Use) -> None:
        """Notes or an answer went into a request."""
        self._uses[use.kind].inc()
        self._metrics.context_age.of().observe(use.age_s)
        self._metrics.context_tokens_saved.of().inc(max(use.tokens_saved, 0.0))

    def regretted(self, count: int) -> None:
        self._metrics.context_regrets.of().inc(count)

    def discovered(self, result: str, count: int = 1) -> None:
        """A beginning that came often was kept, or did not fit; and others were forgotten for it."""
        self._discoveries[result].inc(count)

    def closed(self, reason: str) -> None:
        """The gate kept a call from beginning, or ended some."""
        self._metrics.sleep_gate_closed.of(reason).inc()

    def ended(self, ended: Ended) -> None:
        """A job ended in this process."""
        outcome = ended.outcome if ended.outcome in OUTCOMES else "failed"
        self._metrics.sleep_jobs.of(ended.kind, outcome).inc()
        self._metrics.sleep_job_duration.of(ended.kind).observe(ended.seconds)

    def sent(self, exchange: Exchange, model: str, upstream: str) -> None:
        """A call asleep is over."""
        ledger, tokens = exchange.ledger, self._metrics.tokens
        counts = {
            "input": ledger.prompt,
            "output": ledger.output,
            "cached_input": ledger.cached_prompt,
            "reasoning": ledger.reasoning,
        }
        for kind, count in counts.items():
            if count:
                tokens.of(model, upstream, kind, "sleep").inc(count)
        for call in ledger.calls:
            self._metrics.upstream_call(call.upstream, model, call.outcome, call.seconds)
            self._metrics.spent["before"].inc(call.seconds)

    def look(self, index: Index, status: Mapping[str, Any]) -> None:
        """Bring the gauges up to date."""
        for result, count in index.lookups.items():
            self._lookups[result].inc(count - self._seen[result])
            self._seen[result] = count
        self._metrics.context_entries.of().set(len(index))
        self._metrics.context_bytes.of().set(index.notes_bytes)
        for kind, value in zip(BACKLOG, ("candidates", "active", "deferred"), strict=True):
            self._backlog[kind].set(status[value])
        self._metrics.sleep_oldest.of().set(status["oldest_candidate_s"])
        for place, gauge in self._gates.items():
            gauge.set(status["gates"].get(place, "open") == "open")
