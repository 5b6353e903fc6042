"""The meters of verification, all created at 0; `proxy.metrics` declares what they count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from predawn.plugins.verify.looks import Looks
    from predawn.plugins.verify.modes.rules import Deed
    from predawn.plugins.verify.trace import Check
    from predawn.proxy.metrics import Metrics

VERDICTS: Final = ("pass", "violation", "unsure", "error", "timeout", "shed")
DEEDS: Final = ("flag", "stop", "rewrite", "retry")


class VerifyMeters:
    """Where verification counts."""

    def __init__(self, metrics: Metrics, verifiers: Iterable[str]) -> None:
        self._durations = {name: metrics.verifier_duration.of(name) for name in verifiers}
        self._alongside = metrics.spent["alongside"]
        self._overlap = {name: metrics.verifier_overlap.of(name) for name in self._durations}
        self._added = {name: metrics.verifier_added_latency.of(name) for name in self._durations}
        self._checks = {
            (name, verdict): metrics.verifier_checks.of(name, verdict)
            for name in self._durations
            for verdict in VERDICTS
        }
        self._deeds = {
            (name, deed): metrics.verifier_interventions.of(name, deed) for name in self._durations for deed in DEEDS
        }

    def checked(self, check: Check) -> None:
        """A check is over."""
        name = check.verifier.name
        assert check.verdict is not None
        self._checks[name, check.why or check.verdict.outcome].inc()
        if check.why != "shed":
            self._durations[name].observe(check.ended_s - check.began_s)
            self._alongside.inc(check.ended_s - check.began_s)

    def intervened(self, verifier: str, deed: Deed) -> None:
        """Something was done about a violation."""
        self._deeds[verifier, deed].inc()

    def answered(self, looks: Mapping[str, Looks], generated_at: float) -> None:
        """An answer is over: how much of each verifier's time was hidden behind its generation, and what was not."""
        for name, one in looks.items():
            self._overlap[name].observe(one.hidden(generated_at) / one.whole_s if one.whole_s > 0 else 1.0)
            self._added[name].observe(max(one.last_s - generated_at, 0.0))
