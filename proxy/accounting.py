"""What an exchange cost: usage onto the ledger, the ledger into metrics."""

from __future__ import annotations

import re
from time import perf_counter

from predawn.proxy.exchange import Exchange
from predawn.proxy.metrics import Metrics
from predawn.proxy.models import Model
from predawn.proxy.relay import StreamMeter
from predawn.proxy.wire.openai import Usage

BYTES_PER_TOKEN = 4
"""Rough size of a token, for prompts whose usage nobody reported."""


DATA_URL = re.compile(rb"base64,[A-Za-z0-9+/=\\]{64,}")
TOKENS_PER_MEDIUM = 1000


def estimated_prompt_tokens(body: bytes) -> int:
    """A guess at a prompt's tokens: a token for each four bytes, and a flat thousand for an image or a sound."""
    size = len(body)
    media = 0
    if b"base64," in body:
        for match in DATA_URL.finditer(body):
            media += 1
            size -= match.end() - match.start()
    return size // BYTES_PER_TOKEN + media * TOKENS_PER_MEDIUM


class Account:
    """The times and counts of one exchange while it is served."""

    __slots__ = ("asked_at", "meter", "plugin_s", "upstream_done_at", "usage")

    def __init__(self) -> None:
        self.plugin_s = 0.0
        self.asked_at = 0.0
        """When the upstream was asked; 0 if it never was."""
        self.upstream_done_at = 0.0
        self.usage: Usage | None = None
        self.meter: StreamMeter | None = None

    def close(self, exchange: Exchange, model: Model, metrics: Metrics) -> None:
        """Fill the ledger and count the exchange; called once, when everything is over."""
        now = perf_counter()
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
        """Tokens onto the ledger and its last call. What was answered from here, without a call, cost nothing."""
        ledger, usage, last = exchange.ledger, self.usage, exchange.ledger.calls[-1]
        if usage is not None:
            ledger.prompt += usage.prompt
            ledger.cached_prompt += usage.cached
            ledger.output += usage.output
            ledger.reasoning += usage.reasoning
        elif exchange.route != "raw" and last.status < 400 and last.outcome != "connect":
            ledger.estimated = True
            ledger.prompt += estimated_prompt_tokens(exchange.body)
            ledger.output += self.meter.events if self.meter is not None else 0
        last.prompt_tokens, last.output_tokens = ledger.prompt, ledger.output
        ledger.spend_usd = model.price_of(ledger.prompt, ledger.cached_prompt, ledger.output)

    def _observe(self, exchange: Exchange, model: Model, metrics: Metrics) -> None:
        ledger, meter = exchange.ledger, self.meter
        streamed = meter is not None and meter.reads > 0
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
            discarded_tokens=ledger.discarded,
            verify_tokens=ledger.verify,
        )
        for call in ledger.calls:
            metrics.upstream_call(call.upstream, model.name, call.outcome, call.seconds)
