"""What an exchange cost: usage onto the ledger, the ledger into metrics."""

from __future__ import annotations

from time import perf_counter

from predawn.proxy.exchange import Exchange, Phase
from predawn.proxy.metrics import Metrics
from predawn.proxy.models import Model
from predawn.proxy.prompt_size import estimated_prompt_tokens
from predawn.proxy.stream_meter import StreamMeter
from predawn.proxy.wire.openai import Usage


class Account:
    """The times and counts of one exchange while it is served."""

    __slots__ = ("answered_at", "asked_at", "meter", "plugin_s", "upstream_done_at", "usage")

    def __init__(self) -> None:
        self.plugin_s = 0.0
        self.asked_at = 0.0
        """When the upstream was asked; 0 if it never was."""
        self.answered_at = 0.0
        """When the client had its answer, or an error in place of it."""
        self.upstream_done_at = 0.0
        self.usage: Usage | None = None
        self.meter: StreamMeter | None = None

    def close(self, exchange: Exchange, model: Model, metrics: Metrics) -> None:
        """Fill the ledger and count the exchange; called once, when everything is over."""
        now = self.answered_at or perf_counter()
        ledger = exchange.ledger
        ledger.total_s = now - exchange.started
        ledger.plugin_s = self.plugin_s
        if self.asked_at:
            ledger.upstream_s = (self.upstream_done_at or now) - self.asked_at
        meter = self.meter
        if meter is not None and meter.reads:
            ledger.first_token_s = meter.first_at - exchange.started
            ledger.last_token_s = meter.last_at - exchange.started
            ledger.max_gap_s = meter.max_gap_s
            ledger.chunks = meter.events
            if self.usage is None:
                self.usage = usage = meter.usage
                if usage is not None and exchange.route == "messages" and not meter.has_ended:
                    usage.output_tokens = max(usage.output, meter.events)  # what it began with says nothing of the rest
                    ledger.estimated = True
        if ledger.calls:
            self._book(exchange, model)
        self._observe(exchange, model, metrics)

    def _book(self, exchange: Exchange, model: Model) -> None:
        """Tokens onto the ledger and the call they came by. What was answered from here, without a call, cost nothing.

        Calls that a plugin made beside the exchange's own are booked already, and so may be the answer.
        """
        ledger, usage = exchange.ledger, self.usage
        last = ledger.own_call
        if last is None:
            return
        prompt = cached = output = 0
        if ledger.is_answer_booked:  # others took its place, and how far it came is not known
            if last.status < 400 and last.outcome != "connect":
                prompt, last.phase = estimated_prompt_tokens(exchange.body), "discarded"
                ledger.discarded_prompt += prompt
                ledger.estimated = last.estimated = True
        else:
            if usage is not None:
                prompt, cached, output = usage.prompt, usage.cached, usage.output
                ledger.reasoning += usage.reasoning
            elif exchange.route != "raw" and last.status < 400 and last.outcome != "connect":
                ledger.estimated = last.estimated = True
                prompt = estimated_prompt_tokens(exchange.body)
                output = self.meter.events if self.meter is not None else 0
            ledger.prompt += prompt
            ledger.cached_prompt += cached
            ledger.output += output
        last.prompt_tokens, last.cached_tokens, last.output_tokens = prompt, cached, output
        last.booked = True
        ledger.spend_usd += model.price_of(prompt, cached, output)
        if len(ledger.calls) > 1:
            _book_replaced(exchange, model, prompt)

    def _observe(self, exchange: Exchange, model: Model, metrics: Metrics) -> None:
        ledger, meter = exchange.ledger, self.meter
        streamed = meter is not None and meter.reads > 0
        ended_at = exchange.arrived_at + ledger.total_s
        metrics.traffic(exchange.route, model.name, exchange.upstream, stream=exchange.stream).observe(
            code=exchange.status,
            total_s=ledger.total_s,
            overhead_s=ledger.total_s - ledger.upstream_s - ledger.plugin_s,
            ttft_s=ledger.first_token_s,
            mean_gap_s=meter.mean_gap_s if meter is not None and streamed else None,
            max_gap_s=ledger.max_gap_s if streamed else None,
            input_tokens=ledger.prompt,
            output_tokens=ledger.output,
            cached_tokens=ledger.cached_prompt,
            reasoning_tokens=ledger.reasoning,
            exchange=exchange.id,
            at=ended_at,
        )
        metrics.during.value += ledger.total_s
        metrics.tenant(exchange.tenant).observe(
            exchange.status, ledger.total_s, ledger.first_token_s, ledger.all_prompt, ledger.all_output
        )
        if ledger.discarded or ledger.verify or ledger.discarded_prompt or ledger.verify_prompt:
            self._observe_beside(exchange, model, metrics)
        for call in ledger.calls:
            alias = call.alias or model.name
            metrics.upstream_call(call.upstream, alias, call.outcome, call.seconds, exchange.id, ended_at)

    def _observe_beside(self, exchange: Exchange, model: Model, metrics: Metrics) -> None:
        """Count what was spent beside the answer: by calls where they were made, the rest where the answer was."""
        ledger = exchange.ledger
        left: dict[Phase, list[int]] = {
            "discarded": [ledger.discarded_prompt, ledger.discarded],
            "verify": [ledger.verify_prompt, ledger.verify],
        }
        for call in ledger.calls:
            phase: Phase = call.phase if call.phase != "serve" else "discarded"
            prompt = call.prompt_tokens if call.phase != "serve" else 0
            output = call.output_tokens if call.phase != "serve" else call.wasted_tokens
            metrics.tokens_beside(call.upstream, call.alias or model.name, phase, prompt, output)
            left[phase][0] -= prompt
            left[phase][1] -= output
        for spent_on, (prompt, output) in left.items():
            metrics.tokens_beside(exchange.upstream, model.name, spent_on, max(prompt, 0), max(output, 0))


def _book_replaced(exchange: Exchange, model: Model, prompt: int) -> None:
    """Calls whose answer a plugin took and gave up for another: what they said is not known, what they read is."""
    ledger = exchange.ledger
    for call in ledger.calls:
        if not call.booked and 200 <= call.status < 400:
            call.prompt_tokens, call.phase, call.estimated = prompt, "discarded", True
            ledger.discarded_prompt += prompt
            ledger.estimated = True
            ledger.spend_usd += model.price_of(prompt, 0, 0)
        call.booked = True
