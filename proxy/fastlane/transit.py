"""One request in the fast lane, from its admission to its account."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

from predawn.proxy.accounting import Account
from predawn.proxy.conversation import BROKEN_OFF, CLIENT_CLOSED
from predawn.proxy.fastlane.answer_head import opening_of_stream, status_line
from predawn.proxy.fastlane.books import book, close_account, exchange_of, observed
from predawn.proxy.relay import MAX_BODY_BYTES, UsageHider, WholeEvents
from predawn.proxy.resilience import FirstTry
from predawn.proxy.stream_meter import StreamMeter
from predawn.proxy.upstreams.base import UpstreamError
from predawn.proxy.upstreams.connection import Passage
from predawn.proxy.wire.client_lines import IS_EVENTS, IS_UNUSUAL, TOLD_MS, for_client
from predawn.proxy.wire.errors import error_body, error_event, from_upstream
from predawn.proxy.wire.headers import new_request_id
from predawn.proxy.wire.openai import usage_of_body
from predawn.proxy.wire.sse import EventTooLargeError

if TYPE_CHECKING:
    from predawn.proxy.exchange import Exchange, Outcome, RequestError
    from predawn.proxy.fastlane.answer_head import Dates
    from predawn.proxy.fastlane.heads import Plan
    from predawn.proxy.fastlane.legs import Leg, Onward
    from predawn.proxy.leases import Lease
    from predawn.proxy.resilience import OpenedAnswer
    from predawn.proxy.service import Service
    from predawn.proxy.upstreams.answer_head import AnswerHead
    from predawn.proxy.upstreams.connection import UpstreamConnection
    from predawn.proxy.wire.openai import Head, Usage

HANDED_OVER = frozenset({204, 301, 302, 303, 304, 307, 308, 408, 409, 429})
"""Answers that may be tried again, or are unusual; so are those below 200 and above 499."""


class ClientSide(Protocol):
    """The connection that a request came by: a `Door`."""

    transport: asyncio.Transport
    dates: Dates

    def commit(self) -> None: ...

    def hand_over(self, first: FirstTry | None) -> None: ...

    def done(self) -> None: ...

    def close(self) -> None: ...


class Transit:
    """One request: waits for a connection, then for the answer's head, and relays what follows; a `Receiver`.

    connecting ──> asked ──head──> whole ──end──────────> over
        │            │      └────> stream ─first bytes─> open ─end──> over
        └────────────┴── fails before anything was sent: the full lane goes on with what this try brought

    Whatever happens it ends once, by `_end`, or by `_hand_over`, after which it is as if it had never been.
    """

    # defaults on the class, and no slots: 0.5 us less than setting every one of them for each request
    _connection: UpstreamConnection | None = None
    _connecting: asyncio.Task[None] | None = None
    _lines: list[bytes]
    """Of the answer's head, those the client may see."""
    _says = 0
    """What they say."""
    _spare: tuple[StreamMeter, UsageHider | WholeEvents] | None = None
    """What a stream will be metered and held back by, should it come: made while the upstream is at work."""
    meter: StreamMeter | None = None
    _gate: UsageHider | WholeEvents | None = None
    _pieces: list[bytes] | None = None
    _whole = b""
    _size = 0
    status = 0
    _is_open = False
    """True once the head of a stream was written."""
    _unwritten = b""
    """What goes to the client with the next that does: a write costs as much as all else that is done for a chunk."""
    _passage: Passage | None = None
    """Where whole events of an open stream go through while nothing of it is held back."""
    _is_over = False
    _exchange: Exchange | None = None
    _account: Account | None = None
    upstream_done_at = 0.0
    ended_at = 0.0
    usage: Usage | None = None

    def __init__(  # noqa: PLR0917 - built in one place, once per request: keywords cost 0.5 us
        self,
        door: ClientSide,
        service: Service,
        plan: Plan,
        leg: Leg,
        onward: Onward,
        head: Head,
        body: bytes,
        outgoing: bytes,
        lease: Lease | None,
        began: float,
        hides: bool,
    ) -> None:
        self._door = door
        self.service = service
        self.plan = plan
        self.leg = leg
        self.onward = onward
        self.head = head
        self.body = body
        self._outgoing = outgoing
        self.lease = lease
        self.began = began
        self.hides = hides
        self.asked_at = perf_counter()

    def begin(self) -> None:
        """Ask the upstream; what can be done while it is at work is done after that."""
        connection = self.leg.pool.take()
        if connection is not None:
            self._ask(connection)
        service = self.service
        self.arrived_at = service.tools.clock.now()
        self.ident = self.plan.offered_id or new_request_id(self.arrived_at)
        service.conversations.add(self)
        service.in_flight[self.plan.route.name].value += 1
        self.leg.station.in_flight += 1
        if self.head.stream is True:
            self._spare = StreamMeter(self.plan.route.name), UsageHider() if self.hides else WholeEvents()
        if connection is None:
            self._connecting = service.tools.tasks.spawn(self._connect(), "fast-lane")

    async def _connect(self) -> None:
        connection = error = None
        try:
            connection = await self.leg.pool.acquire()
        except UpstreamError as exc:
            error = exc
        finally:
            self._connecting = None
            if connection is None and not self._is_over:  # also after what nobody foresaw: the full lane reports it
                self._hand_over(error)
        if connection is not None:
            self._ask(connection)

    def _ask(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        onward, body = self.onward, self._outgoing
        head = (onward.before_length, len(body), self.plan.varying_lines, onward.after_length)
        connection.ask(self, b"%b%d%b%b" % head, body)

    # -- the answer

    def on_head(self, head: AnswerHead) -> None:
        self.status = status = head.status
        self._lines, self._says = lines, says = head.for_client or for_client(head.headers)
        is_odd = says & IS_UNUSUAL or (says & IS_EVENTS and (status >= 400 or self.head.stream is not True))
        if status < 200 or status >= 500 or status in HANDED_OVER or is_odd:
            connection = self._connection
            assert connection is not None
            self._hand_over(self.leg.upstream.adopt(connection, head))
            return
        if says & IS_EVENTS:  # which says nothing yet of the upstream's health
            assert self._spare is not None
            self.meter, self._gate = self._spare
            self._unwritten = head.opening or opening_of_stream(head, lines)
        else:
            self.leg.station.breaker.succeeded()

    def on_body(self, data: bytes, is_last: bool) -> None:
        gate = self._gate
        if gate is None:
            if not self._size:
                self._whole = data
            else:
                if self._pieces is None:
                    self._pieces = [self._whole]
                self._pieces.append(data)
            self._size += len(data)
            if self._size > MAX_BODY_BYTES:
                self._drop(f"the answer has more than {MAX_BODY_BYTES >> 20} MiB")
            return
        now = perf_counter()
        is_first = not self._is_open
        if is_first:
            self._open(now)
        try:
            shown = gate.feed(data)
        except EventTooLargeError as exc:
            self._note(data, now, is_first=is_first)
            self._drop(str(exc))
            return
        unwritten = self._unwritten
        if shown:
            unwritten = b"%b%x\r\n%b\r\n" % (unwritten, len(shown), shown)
        if is_last:
            self._unwritten = unwritten
        elif unwritten:
            self._unwritten = b""
            self._door.transport.write(unwritten)
        self._note(data, now, is_first=is_first)  # after the client has it: 30 µs of the first token's time, cold
        if gate.is_clear and not is_last:
            assert self._connection is not None
            assert self._passage is not None
            self._connection.let_pass(self._passage)

    def _note(self, data: bytes, now: float, *, is_first: bool) -> None:
        assert self.meter is not None
        self.meter.saw(data, now)
        if is_first:
            self._opened()

    def on_chunk(self, data: bytes) -> None:
        self.on_body(data, is_last=False)

    def on_end(self) -> None:
        self._connection = None
        self.upstream_done_at = perf_counter()
        if self._gate is None:
            self._finish_whole()
        else:
            self._finish_stream(self._gate)

    def on_lost(self, error: UpstreamError) -> None:
        self._connection = None
        if error.sent_nothing:
            self._hand_over(error)
        elif self._gate is not None and not self._is_open:  # of the answer there was the head alone
            self._hand_over(UpstreamError(error.upstream, error.reason, error.message))
        else:
            self._fail(error)

    def _open(self, now: float) -> None:
        """Begin a stream's answer: the head goes with what is written first."""
        self._is_open = True
        head = (self._unwritten, self._own_lines(now))
        self._unwritten = b"%b%bTransfer-Encoding: chunked\r\n\r\n" % head

    def _opened(self) -> None:
        """What else there is to do when a stream begins."""
        assert self.meter is not None
        self.leg.station.breaker.succeeded()
        self._passage = Passage(self._door.transport.write, self.meter, hides=self.hides)
        self._outgoing = b""
        self._door.commit()

    def _own_lines(self, now: float) -> bytes:
        told = b"" if self._says & TOLD_MS else b"openai-processing-ms: %d\r\n" % ((now - self.began) * 1000)
        return b"%b%b%b\r\n%b" % (told, self.onward.own_lines, self.ident.encode(), self._door.dates.line())

    def _finish_whole(self) -> None:
        body = self._whole if self._pieces is None else b"".join(self._pieces)
        own = self._own_lines(self.upstream_done_at)
        head = (status_line(self.status), b"".join(self._lines), own, len(body), body)
        self._door.transport.write(b"%b%b%bContent-Length: %d\r\n\r\n%b" % head)
        self._end(usage_of_body(body))

    def _finish_stream(self, gate: UsageHider | WholeEvents) -> None:
        meter, door = self.meter, self._door
        assert meter is not None
        meter.count()
        if not self._is_open:
            self._open(self.upstream_done_at)
            self._opened()
        if rest := gate.rest():
            self._unwritten = b"%b%x\r\n%b\r\n" % (self._unwritten, len(rest), rest)
        if self.leg.model.expects_end and not meter.has_ended:
            name = self.leg.name
            self._fail(UpstreamError(name, "truncated", "the stream ended without its end mark", sent_nothing=False))
            return
        door.transport.write(self._unwritten + b"0\r\n\r\n")
        self._end(None)

    # -- other ends

    def _hand_over(self, result: UpstreamError | OpenedAnswer | None) -> None:
        """Let the full lane go on: nothing was sent to the client yet."""
        first = FirstTry(self.leg.target, self.began, result) if result is not None else None
        if self._door.transport.is_closing():  # nobody is left to go on for, which the loop is about to tell
            if first is not None:
                first.drop()
            self.client_left()
            return
        self._leave()
        if self.lease is not None:
            self.lease.release()
        self._door.hand_over(first)

    def _drop(self, message: str) -> None:
        """Give up an answer that cannot be relayed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        self._fail(UpstreamError(self.leg.name, "protocol", message, sent_nothing=False))

    def _fail(self, error: UpstreamError) -> None:
        """The answer was lost on the way; the client is told what it can be told."""
        self.service.tools.metrics.upstream_error(error.upstream, error.reason)
        outcome: Outcome = "truncated" if error.reason in BROKEN_OFF else "upstream_error"
        self._refuse(from_upstream(error, retried=False), outcome, call_outcome=error.reason)

    def _refuse(self, error: RequestError, outcome: Outcome, *, call_outcome: str) -> None:
        door, route = self._door, self.plan.route.name
        if self._is_open:
            event = error_event(error, route)
            door.transport.write(b"%b%x\r\n%b\r\n" % (self._unwritten, len(event), event))
            door.close()
        else:
            body = error_body(error, route)
            own = {
                "Content-Type": "application/json",
                **error.headers,
                "x-request-id": self.ident,
                "Server": "predawn",
            }
            lines = "".join(f"{name}: {value}\r\n" for name, value in own.items()).encode("utf-8", "surrogateescape")
            length = b"Content-Length: %d\r\n\r\n" % len(body)
            door.transport.write(b"".join((status_line(error.status), lines, door.dates.line(), length, body)))
        self._end_at_length(outcome, error.status, error.message, call_outcome)

    def interrupt(self, error: RequestError) -> None:
        """End it now, for a reason the client is told."""
        if not self._is_over:
            self._stop_asking()
            self._refuse(error, "truncated", call_outcome="cancelled")

    def client_left(self, error: str | None = None) -> None:
        """The client is gone, or might as well be."""
        if not self._is_over:
            self._stop_asking()
            self._end_at_length("client_closed", CLIENT_CLOSED, error, "cancelled")

    def _stop_asking(self) -> None:
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    def pause(self) -> None:
        """The client does not keep up."""
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        if self._connection is not None:
            if self.meter is not None:
                self.meter.count()
                self.meter.last_at = perf_counter()  # the pause was the client's, not the upstream's
            self._connection.resume()

    @property
    def idle_s(self) -> float:
        return self.leg.model.timeouts.idle_s

    def overdue(self, now: float) -> bool:
        """True once it has taken longer than its upstream's `total_s`."""
        return now - self.began > self.leg.model.timeouts.total_s

    # -- the account

    def _leave(self) -> None:
        """Be no more among those that are on their way."""
        assert not self._is_over
        self._is_over = True
        service = self.service
        service.conversations.discard(self)
        service.in_flight[self.plan.route.name].value -= 1
        self.leg.station.in_flight -= 1

    def _end(self, usage: Usage | None) -> None:
        """It was answered, well or not, and the answer relayed."""
        tools = self.service.tools
        is_counted_as_it_comes = self.meter is None or self.plan.route.name != "messages"
        if self.status >= 400 or tools.log_requests or tools.feed.is_watched or not is_counted_as_it_comes:
            self._end_at_length("ok" if self.status < 400 else "client_error", self.status, None, "ok", usage)
            return
        self._leave()
        self.service.fast_lane.value += 1
        try:
            self.usage, self.ended_at = usage, perf_counter()
            if tools.observers.serving(self.leg.model.name):
                tools.observers.done(observed(self, book(self)))
            elif self.meter is None or self.lease is not None:
                book(self)
            else:
                tools.metrics.postponed.add(self)
        finally:
            self._door.done()

    def close_account(self) -> None:
        """Count and book it; called by `Postponed`."""
        book(self)

    def _end_at_length(
        self, outcome: Outcome, status: int, error: str | None, call_outcome: str, usage: Usage | None = None
    ) -> None:
        """It ended in another way, or somebody looks at it: the account is closed as the full lane does."""
        self._leave()
        self.service.fast_lane.value += 1
        try:
            exchange, account = self.seen
            exchange.outcome, exchange.status, exchange.error, exchange.is_closed = outcome, status, error, True
            account.usage = usage
            close_account(self, exchange, account, call_outcome)
            tools = self.service.tools
            if tools.feed.is_watched:
                tools.feed.ended(self, exchange, account)
        finally:
            self._door.done()

    @property
    def seen(self) -> tuple[Exchange, Account]:
        """The request as the full lane would have it, for whoever looks at what is going on."""
        exchange, account = self._exchange, self._account
        if exchange is None or account is None:
            exchange, account = self._exchange, self._account = exchange_of(self), Account()
            account.asked_at = self.asked_at
        if self.status and (self.meter is None or self._is_open):  # the head of a stream alone is no answer yet
            exchange.upstream, exchange.upstream_model = self.leg.name, self.leg.model_for(self.head.model)
        if self.meter is not None:
            self.meter.count()
        account.meter = self.meter
        account.upstream_done_at = self.upstream_done_at
        return exchange, account
