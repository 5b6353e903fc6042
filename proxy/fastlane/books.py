"""What a request in the fast lane cost: its meters, its key's usage, and the exchange that observers are shown.

A request that was answered well is booked by `book`, in one go. Every other end makes the exchange that the full lane
would have had, and is booked as there.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Protocol, TypeAlias

from predawn.proxy.conversation import log_request
from predawn.proxy.exchange import Call, Exchange
from predawn.proxy.prompt_size import estimated_prompt_tokens

if TYPE_CHECKING:
    from predawn.proxy.accounting import Account
    from predawn.proxy.fastlane.heads import Plan
    from predawn.proxy.fastlane.legs import Leg, Onward
    from predawn.proxy.leases import Lease
    from predawn.proxy.service import Service
    from predawn.proxy.stream_meter import StreamMeter
    from predawn.proxy.wire.openai import Head, Usage


class Served(Protocol):
    """A request in the fast lane, as far as its books go: a `Transit`."""

    service: Service
    plan: Plan
    leg: Leg
    onward: Onward
    head: Head
    body: bytes
    lease: Lease | None
    hides: bool
    ident: str
    arrived_at: float
    began: float
    asked_at: float
    upstream_done_at: float
    ended_at: float
    usage: Usage | None
    status: int
    meter: StreamMeter | None

    @property
    def seen(self) -> tuple[Exchange, Account]: ...


Sums: TypeAlias = "tuple[float, float, tuple[int, int, int, int], float, bool]"
"""Seconds in all and of the call, tokens (prompt, output, cached, reasoning), dollars, and whether they are a guess."""


def book(transit: Served) -> Sums:
    """Count a request that was answered well: what `Account.close` does for one with a single call, 9 µs less."""
    metrics, meter, leg, plan = transit.service.tools.metrics, transit.meter, transit.leg, transit.plan
    now, usage = transit.ended_at, transit.usage
    total_s, call_s = now - transit.began, now - transit.asked_at
    ended_at = transit.arrived_at + total_s
    overhead_s = total_s - (transit.upstream_done_at - transit.asked_at)
    if meter is not None and meter.reads:
        usage = meter.usage
    if usage is not None:
        tokens = usage.counts
    else:
        tokens = (estimated_prompt_tokens(transit.body), meter.events if meter is not None else 0, 0, 0)
    times = (total_s, overhead_s, call_s)
    if transit.status != 200 or (meter is None) is (transit.head.stream is True):
        _book_unusual(transit, times, tokens, ended_at)
    elif meter is None:
        transit.onward.whole.observe(*times, tokens, transit.ident, ended_at)
    else:
        _book_stream(transit, meter, times, tokens, ended_at)
    metrics.during.value += total_s
    model, (prompt, output, cached, _) = leg.model, tokens
    spend_usd = model.price_of(prompt, cached, output) if model.price is not None else 0.0
    if transit.lease is not None:
        transit.lease.settle(prompt, cached, output, spend_usd)
    elif (tab := plan.tab) is not None:
        tab.add_request(prompt, cached, output, spend_usd, ended_at)
    return total_s, call_s, tokens, spend_usd, usage is None


def _book_stream(
    transit: Served,
    meter: StreamMeter,
    times: tuple[float, float, float],
    tokens: tuple[int, int, int, int],
    ended_at: float,
) -> None:
    onward, ident = transit.onward, transit.ident
    meters = onward.streamed
    if meters is None:
        names = (transit.plan.route.name, transit.leg.model.name, transit.leg.name, transit.plan.identity.tenant)
        meters = onward.streamed = transit.service.tools.metrics.plain_answers(*names, stream=True)
    meters.observe(*times, tokens, ident, ended_at)
    if meter.reads:
        meters.observe_stream(meter.first_at - transit.began, meter.mean_gap_s, meter.max_gap_s, ident, ended_at)


def _book_unusual(
    transit: Served, times: tuple[float, float, float], tokens: tuple[int, int, int, int], ended_at: float
) -> None:
    metrics, meter, leg, plan = transit.service.tools.metrics, transit.meter, transit.leg, transit.plan
    total_s, overhead_s, call_s = times
    ttft_s = gap_s = widest_s = None
    if meter is not None and meter.reads:
        ttft_s, gap_s, widest_s = meter.first_at - transit.began, meter.mean_gap_s, meter.max_gap_s
    prompt, output, cached, reasoning = tokens
    metrics.traffic(plan.route.name, leg.model.name, leg.name, transit.head.stream is True).observe(
        code=transit.status,
        total_s=total_s,
        overhead_s=overhead_s,
        ttft_s=ttft_s,
        mean_gap_s=gap_s,
        max_gap_s=widest_s,
        input_tokens=prompt,
        output_tokens=output,
        cached_tokens=cached,
        reasoning_tokens=reasoning,
        exchange=transit.ident,
        at=ended_at,
    )
    metrics.tenant(plan.identity.tenant).observe(transit.status, total_s, ttft_s, prompt, output)
    metrics.upstream_call(leg.name, leg.model.name, "ok", call_s, transit.ident, ended_at)


def exchange_of(transit: Served) -> Exchange:
    """The exchange that the full lane would have, as far as it has come."""
    plan, head, model = transit.plan, transit.head, transit.leg.model
    exchange = Exchange(
        transit.body,
        id=transit.ident,
        route=plan.route.name,
        path=plan.route.path,
        tenant=plan.identity.tenant,
        key_id=plan.identity.key_id,
        model=head.model,
        stream=head.stream is True,
        headers=plan.all_headers,
        arrived_at=transit.arrived_at,
        started=transit.began,
    )
    exchange.head = head
    exchange.alias = model.name
    exchange.price = model.price
    exchange.lease = transit.lease
    exchange.hides_usage = transit.hides
    exchange.wants_usage = model.asks_usage or plan.identity.needs_usage
    call = Call(transit.leg.name, transit.leg.model_for(head.model), exchange.call_purpose)
    call.started_s = transit.asked_at - transit.began
    exchange.ledger.calls.append(call)
    return exchange


def observed(transit: Served, sums: Sums) -> Exchange:
    """The exchange that observers are shown of a request that is booked."""
    exchange = transit.seen[0]
    exchange.status, exchange.is_closed = transit.status, True
    ledger, meter = exchange.ledger, transit.meter
    ledger.total_s, call_s, (prompt, output, cached, reasoning), ledger.spend_usd, ledger.estimated = sums
    ledger.upstream_s = transit.upstream_done_at - transit.asked_at
    if meter is not None and meter.reads:
        ledger.first_token_s = meter.first_at - transit.began
        ledger.last_token_s = meter.last_at - transit.began
        ledger.max_gap_s, ledger.chunks = meter.max_gap_s, meter.events
    ledger.prompt, ledger.output, ledger.cached_prompt, ledger.reasoning = prompt, output, cached, reasoning
    call = ledger.calls[0]
    call.status, call.outcome, call.seconds = transit.status, "ok", call_s
    call.prompt_tokens, call.output_tokens, call.cached_tokens = prompt, output, cached
    call.estimated, call.booked = ledger.estimated, True
    return exchange


def close_account(transit: Served, exchange: Exchange, account: Account, call_outcome: str) -> None:
    """Fill the ledger, count, book and tell, as the full lane does."""
    tools, model = transit.service.tools, transit.leg.model
    now = account.answered_at = perf_counter()
    call = exchange.ledger.calls[0]
    call.status, call.outcome, call.seconds = transit.status, call_outcome, now - transit.asked_at
    account.close(exchange, model, tools.metrics)
    ledger = exchange.ledger
    used = (ledger.all_prompt, ledger.cached_prompt, ledger.all_output, ledger.spend_usd)
    if transit.lease is not None:
        transit.lease.settle(*used)
    elif (tab := transit.plan.tab) is not None:
        tab.add_request(*used, transit.arrived_at + ledger.total_s)
    tools.observers.done(exchange)
    if tools.log_requests:
        log_request(exchange)
