"""What drawing an answer came to: for the client, the exchange's record and the meters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from predawn.plugins.sampling.meters import OUTCOMES
from predawn.plugins.sampling.result import STATE_KEY, SamplingResult

if TYPE_CHECKING:
    from collections.abc import Mapping

    from predawn.plugins.sampling.drawing import Drawing
    from predawn.plugins.sampling.manner import Manner
    from predawn.plugins.sampling.meters import SamplingMeters
    from predawn.plugins.sampling.strategies.protocol import Stop
    from predawn.plugins.sampling.voices import Voice


class Account:
    """What a drawing came to; written once, when its request is over."""

    def __init__(self, drawing: Drawing, manner: Manner, meters: SamplingMeters) -> None:
        self._drawing = drawing
        self._manner = manner
        self._meters = meters
        self._is_written = False

    def told(self) -> Mapping[str, Any]:
        """What `usage.predawn` says besides tokens."""
        drawing = self._drawing
        stop = drawing.stop
        told: dict[str, Any] = {"strategy": drawing.plan.strategy, "samples": drawing.drawn}
        if stop is not None:
            told["why"] = stop.why
            if stop.agreement is not None:
                told["agreement"] = round(stop.agreement, 4)
        return told

    async def aclose(self) -> None:
        """Give up what still runs, and write the record."""
        try:
            await self._drawing.aclose()
        finally:
            self._write()

    def _write(self) -> None:
        if self._is_written:
            return
        self._is_written = True
        drawing, manner = self._drawing, self._manner
        exchange, stop, plan = drawing.exchange, drawing.stop, drawing.plan
        winner = drawing.winner
        extracted = winner.sample.extracted if winner is not None and winner.sample is not None else None
        result = SamplingResult(
            strategy=plan.strategy,
            drawn=drawing.drawn,
            agreement=stop.agreement if stop is not None and drawing.compared > 1 else None,
            why=stop.why if stop is not None else "abandoned",
            tokens=exchange.ledger.all_output,
            selected=stop.winner if stop is not None else None,
            confidence=stop.confidence if stop is not None else None,
            answer=extracted.shown[:200] if extracted is not None else None,
            choice=winner.choice if winner is not None else 0,
        )
        exchange.state[STATE_KEY] = result
        outcomes: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
        for voice in drawing.voices:
            outcomes[_outcome(voice, winner)] += 1
        cancelled = sum(voice.spent for voice in drawing.voices if _outcome(voice, winner) == "cancelled")
        detail: dict[str, Any] = {
            "wanted_by": plan.by,
            "strategy": result.strategy,
            "samples": result.drawn,
            "allowed": plan.samples,
            "agreement": result.agreement,
            "confidence": result.confidence,
            "selected": result.selected,
            "why": result.why,
            "tokens": result.tokens,
            "cancelled_tokens": cancelled,
            **{name: count for name, count in outcomes.items() if count and name != "selected"},
        }
        if manner.temperature is not None:
            detail["temperature"] = manner.temperature
        if manner.seed is not None:
            detail["seed"] = manner.seed
        if comparisons := drawing.means.judging.comparisons:
            detail["comparisons"] = comparisons
        exchange.decide("sampling", "answered" if winner is not None else "no answer", **detail)
        self._meters.ended(result, outcomes, cancelled, plan.samples)


def headers_of(drawing: Drawing, stop: Stop) -> Mapping[str, str]:
    """What the client is told beside the answer."""
    headers = {
        "x-predawn-strategy": drawing.plan.strategy,
        "x-predawn-samples": str(drawing.drawn),
        "x-predawn-stopped": stop.why,
    }
    if stop.agreement is not None:
        headers["x-predawn-agreement"] = f"{stop.agreement:.2f}"
    return headers


def _outcome(voice: Voice, winner: Voice | None) -> str:
    if voice is winner:
        return "selected"
    return {"finished": "discarded", "failed": "failed"}.get(voice.state, "cancelled")
