"""Sending an exchange until somebody answers: targets by weight, retries before the first byte, fallbacks, breakers."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

from predawn.proxy.breaker import Breaker
from predawn.proxy.clock import Clock
from predawn.proxy.exchange import Call, Exchange, Reply, RequestError
from predawn.proxy.settings import PriceSettings, RetrySettings, UpstreamSettings
from predawn.proxy.upstreams.base import Reason, Upstream, UpstreamError, UpstreamRequest
from predawn.proxy.wire.outgoing import outgoing_body

RETRYABLE = frozenset({408, 409, 429})


class UpstreamMeters(Protocol):
    """Where upstream trouble is counted."""

    def upstream_error(self, upstream: str, reason: Reason) -> None: ...

    def upstream_retry(self, upstream: str) -> None: ...

    def upstream_fallback(self, upstream: str) -> None: ...


class Station:
    """One upstream with what is known of its health: how many requests are on their way, and its breaker."""

    __slots__ = ("breaker", "in_flight", "settings", "shared_by", "upstream")

    def __init__(self, upstream: Upstream, settings: UpstreamSettings, breaker: Breaker) -> None:
        self.upstream = upstream
        self.settings = settings
        self.breaker = breaker
        self.in_flight = 0
        self.shared_by = 1
        """How many generations of the settings use it; the last one closes it."""

    def __repr__(self) -> str:
        return f"<Station {self.settings.name} {self.in_flight} in flight, {self.breaker.state}>"


@dataclass(frozen=True, slots=True)
class Target:
    """One of the upstreams that serve an alias."""

    station: Station
    model: str | None
    """The model's name there; the alias the client gave when `None`."""
    weight: float


@dataclass(frozen=True, slots=True)
class Tier:
    """The targets of one alias; tiers are tried one after another."""

    alias: str
    targets: tuple[Target, ...]
    output_limit: int | None


class Flight:
    """One call on its way: ended exactly once, whatever happened."""

    __slots__ = ("_began", "_call", "_ended", "_reply", "_station")

    def __init__(self, station: Station, call: Call, began: float) -> None:
        self._station = station
        self._call = call
        self._began = began
        self._reply: Reply | None = None
        self._ended = False
        station.in_flight += 1
        station.breaker.begin()

    def answered(self, reply: Reply) -> None:
        self._reply = reply
        self._call.status = reply.status
        if reply.status >= 500 or reply.status == 429:
            self._call.outcome = "429" if reply.status == 429 else "5xx"
        if reply.status >= 500:
            self._station.breaker.failed()
        else:
            self._station.breaker.succeeded()

    async def end(self, outcome: str = "ok") -> None:
        """Close the reply's body and book the time."""
        if self._ended:
            return
        self._ended = True
        self._station.in_flight -= 1
        self._call.seconds = perf_counter() - self._began
        if self._call.outcome == "pending":
            self._call.outcome = outcome
        if self._reply is not None and self._reply.source is not None:
            await self._reply.source.aclose()

    def failed(self, error: UpstreamError) -> None:
        self._call.outcome = error.reason
        if error.is_stale:
            self._station.breaker.abandoned()
        else:
            self._station.breaker.failed()

    def cancelled(self) -> None:
        self._call.outcome = "cancelled"
        self._station.breaker.abandoned()


class OpenedAnswer(Protocol):
    """An answer whose head is there."""

    async def reply(self) -> Reply:
        """The reply once its first bytes are there. Raises `UpstreamError`."""
        ...

    def abort(self) -> None:
        """Nobody wants it."""
        ...


@dataclass(frozen=True, slots=True)
class FirstTry:
    """A call made in the fast lane, which leaves it to the full lane what to make of its result."""

    target: Target
    began: float
    result: OpenedAnswer | UpstreamError

    async def reply(self) -> Reply:
        if isinstance(self.result, UpstreamError):
            raise self.result
        return await self.result.reply()

    def drop(self) -> None:
        """Nobody wants to know."""
        if not isinstance(self.result, UpstreamError):
            self.result.abort()


@dataclass(frozen=True, slots=True)
class _Try:
    """How one call ended; a reply keeps its flight, which is over once nobody wants the reply any more."""

    result: Reply | UpstreamError
    flight: Flight | None = None


class Sender:
    """Sends the exchanges of one alias; its `send` is the innermost call of the alias's pipeline."""

    def __init__(
        self, tiers: tuple[Tier, ...], clock: Clock, meters: UpstreamMeters, price: PriceSettings | None = None
    ) -> None:
        self.tiers = tiers
        self._price = price
        self._clock = clock
        self._meters = meters

    async def send(self, exchange: Exchange) -> Reply:
        """The first good answer, or the last bad one. Raises `UpstreamError` if nobody answered at all.

        What is thought asleep has no fallback: nobody waits for it, and it spends only where it was meant to.
        """
        exchange.price = self._price
        tries = 0
        tried: _Try | None = None
        tiers = self.tiers if exchange.call_purpose != "sleep" else self.tiers[:1]
        crashed: set[str] = set()
        for number, tier in enumerate(tiers):
            targets = [
                target
                for target in tier.targets
                if exchange.route in target.station.upstream.routes and target.station.settings.name not in crashed
            ]
            if not targets:
                continue
            if tried is not None:
                self._meters.upstream_fallback(targets[0].station.settings.name)
                exchange.decide("predawn", "fallback", alias=tier.alias, tier=number)
            tried, used = await self._try_tier(exchange, tier, targets, tried)
            tries += used
            if isinstance(tried.result, UpstreamError) and tried.result.reason == "crashed":
                crashed.add(tried.result.upstream)
            if not _worth_a_fallback(tried.result):
                break
        if tried is None:
            raise _not_spoken(exchange)
        last = tried.result
        if isinstance(last, UpstreamError):
            last.retried = tries > 1
            raise last
        if tries > 1 and _retryable(last):
            last.headers = {**last.headers, "x-should-retry": "false"}
        return last

    async def _try_tier(
        self, exchange: Exchange, tier: Tier, targets: list[Target], tried: _Try | None
    ) -> tuple[_Try, int]:
        """The result of the last try, and how many there were; `tried` is that of the tier before."""
        attempts = max([target.station.settings.retries.attempts for target in targets])
        failed: set[int] = set()
        used = 0
        while used < attempts:
            first = exchange.first_try
            target = choose(targets, failed) if first is None else first.target
            if target is None:
                break
            if used:
                self._meters.upstream_retry(target.station.settings.name)
            if tried is not None and tried.flight is not None:  # not earlier: without another try this is the answer
                await tried.flight.end()
            tried = await self._try(exchange, tier, target)
            used += 1
            if not _retryable(tried.result):
                break
            failed.add(id(target))
            pause = self._pause(tried.result, target.station.settings.retries, used)
            others = any(t.station.breaker.available and id(t) not in failed for t in targets)
            if used >= attempts or (pause is None and not others):
                break
            if not others and pause:
                await self._clock.sleep(pause)
        if tried is None:
            message = "taken out of service after failures; it is tried again soon"
            tried = _Try(UpstreamError(targets[0].station.settings.name, "breaker", message))
        return tried, used

    async def _try(self, exchange: Exchange, tier: Tier, target: Target) -> _Try:
        first: FirstTry | None = exchange.first_try
        exchange.first_try = None
        upstream = target.station.upstream
        model = target.model or (exchange.model if tier.alias == "*" else tier.alias)
        body = outgoing_body(exchange, model, tier.output_limit)
        call = Call(upstream.name, model, exchange.call_purpose)
        began = perf_counter() if first is None else first.began
        call.started_s = max(began - exchange.started, 0.0)
        exchange.ledger.calls.append(call)
        request = UpstreamRequest(
            exchange.route,
            "POST",
            exchange.path,
            model,
            body,
            exchange.headers if exchange.trace is None else exchange.trace.onward(call, exchange.headers),
            exchange.stream,
            exchange.decoded,
            exchange.tenant,
        )
        flight = Flight(target.station, call, perf_counter() if first is None else began)
        try:
            reply = await (upstream.send(request) if first is None else first.reply())
        except UpstreamError as exc:
            flight.failed(exc)
            self._meters.upstream_error(upstream.name, exc.reason)
            await flight.end(exc.reason)
            return _Try(exc)
        except BaseException:  # cancelled, or what it was sent cannot be sent: nothing is learnt of the upstream
            flight.cancelled()
            await flight.end("cancelled")
            raise
        flight.answered(reply)
        exchange.end_with(flight.end)
        if reply.status >= 500 or reply.status == 429:
            self._meters.upstream_error(upstream.name, "429" if reply.status == 429 else "5xx")
        exchange.upstream = upstream.name
        exchange.upstream_model = model
        return _Try(reply, flight)

    def _pause(self, result: Reply | UpstreamError, retries: RetrySettings, used: int) -> float | None:
        """Seconds until the next try of the same target, or `None` if the client had better wait than we."""
        if isinstance(result, Reply) and (asked := retry_after_s(result.headers, self._clock)) is not None:
            return asked if asked <= retries.max_wait_s else None
        ceiling: float = min(retries.base_s * 2 ** (used - 1), retries.max_wait_s)
        return random.uniform(0, ceiling)  # noqa: S311 - full jitter, no secret


def choose(targets: list[Target], failed: set[int]) -> Target | None:
    """The available target with the fewest requests in flight for its weight; those that just failed come last."""
    available = [target for target in targets if target.station.breaker.available]
    if len(available) <= 1:
        return available[0] if available else None
    fresh = [target for target in available if id(target) not in failed] or available
    loads = [target.station.in_flight / target.weight for target in fresh]
    least = min(loads)
    light = [target for target, load in zip(fresh, loads, strict=True) if load == least]
    # ties are broken in proportion to the weights, so that an idle pool shares as configured
    return random.choices(light, [target.weight for target in light])[0]  # noqa: S311 - load balancing


def _retryable(result: Reply | UpstreamError) -> bool:
    """True if the same upstream may answer next time; one that timed out, crashed or spoke nonsense may not."""
    if isinstance(result, UpstreamError):
        return result.sent_nothing and result.reason in ("connect", "truncated")
    return result.status in RETRYABLE or result.status >= 500


def _worth_a_fallback(result: Reply | UpstreamError) -> bool:
    """True if another upstream may do better and nothing has been sent to the client."""
    return result.sent_nothing if isinstance(result, UpstreamError) else _retryable(result)


def retry_after_s(headers: Mapping[str, str], clock: Clock) -> float | None:
    """What `retry-after-ms` or `retry-after` ask for, in seconds; `None` if they are absent or unreadable."""
    milliseconds = headers.get("retry-after-ms")
    seconds = headers.get("retry-after")
    try:
        if milliseconds is not None:
            return max(0.0, float(milliseconds) / 1000)
        if seconds is not None:
            return max(0.0, float(seconds))
    except ValueError:
        return _until_date(seconds, clock) if seconds is not None else None
    return None


def _until_date(value: str, clock: Clock) -> float | None:
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - clock.now())
    except (ValueError, OverflowError):
        return None


def _not_spoken(exchange: Exchange) -> RequestError:
    message = f"The upstream of model {exchange.model!r} does not speak {exchange.path.partition('?')[0]}."
    return RequestError(404, message, code="unsupported_endpoint", param="model")
