"""One exchange from admission to the last observer: hooks, upstream, relay, account. DESIGN's picture, in code."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

from aiohttp import web
from multidict import CIMultiDict

from predawn.proxy.accounting import Account
from predawn.proxy.answer import WholeAnswer
from predawn.proxy.clock import Clock
from predawn.proxy.dispatch import HookError, Observers
from predawn.proxy.exchange import ChunkFilter, Exchange, Outcome, Reply, RequestError
from predawn.proxy.live.feed import Feed
from predawn.proxy.metrics import Metrics
from predawn.proxy.models import Model
from predawn.proxy.prompt_size import estimated_prompt_tokens
from predawn.proxy.relay import (
    STREAM_HEADERS,
    ClientStalledError,
    StreamSink,
    UsageHider,
    WholeEvents,
    fold_chunks,
    pump_bytes,
    pump_chunks,
    read_body,
    stream_of_body,
)
from predawn.proxy.stream_meter import StreamMeter
from predawn.proxy.tasks import Tasks
from predawn.proxy.upstreams.base import UpstreamError
from predawn.proxy.wire.errors import error_body, error_event, event_of_error, from_upstream, plugin_failed
from predawn.proxy.wire.fold import BodyChunk
from predawn.proxy.wire.openai import usage_of_body
from predawn.proxy.wire.sse import EventTooLargeError

if TYPE_CHECKING:
    from predawn.proxy.access import Access, Identity
    from predawn.proxy.leases import Lease

log = logging.getLogger("predawn.conversation")
CLIENT_CLOSED = 499
"""Status on the record of an exchange whose client went away; nobody receives it."""
BROKEN_OFF = frozenset({"truncated", "timeout_idle", "crashed"})


@dataclass(frozen=True, slots=True)
class Tools:
    """What every conversation uses."""

    clock: Clock
    tasks: Tasks
    metrics: Metrics
    observers: Observers
    keep_alive_comment_s: float
    log_requests: bool = False
    feed: Feed = field(default_factory=Feed)
    late: set[Conversation] = field(default_factory=set)
    """Those that are answered, and of which something is still being found out."""

    async def observe_late(self, exchange: Exchange) -> None:
        """Tell observers of an exchange once all is known that is still being found out about it."""
        try:
            await exchange.settle()
        finally:
            self.observers.done(exchange)


class Conversation:
    """Serves one exchange. Whatever happens, its scope is closed, its ledger written and its observers told, once."""

    __slots__ = (
        "_access",
        "_account",
        "_exchange",
        "_identity",
        "_interruption",
        "_is_sent",
        "_lease",
        "_model",
        "_request",
        "_sink",
        "_tools",
    )

    def __init__(  # noqa: PLR0917 - built in one place, once per request: keywords cost 0.3 us
        self,
        tools: Tools,
        access: Access,
        request: web.BaseRequest,
        exchange: Exchange,
        model: Model,
        identity: Identity,
    ) -> None:
        self._tools = tools
        self._access = access
        self._request = request
        self._exchange = exchange
        self._model = model
        self._identity = identity
        self._lease: Lease | None = None
        self._account = Account()
        self._interruption: RequestError | None = None
        self._is_sent = False
        """True once the whole answer was written and only headers behind it are missing."""
        self._sink = StreamSink(request, exchange.id, model.timeouts.idle_s)

    @property
    def seen(self) -> tuple[Exchange, Account]:
        """What the live page shows, in brief."""
        return self._exchange, self._account

    def overdue(self, now: float) -> bool:
        """True once it has taken longer than its upstream's `total_s`."""
        return now - self._exchange.started > self._model.timeouts.total_s

    async def run(self) -> web.StreamResponse:
        """Answer; an error becomes a response, or the last event of a stream that has begun."""
        exchange = self._exchange
        try:
            return await self._answer()
        except RequestError as exc:
            return self._refuse(exc, "client_error")
        except HookError as exc:
            log.error("%s", exc, exc_info=exc.__cause__, extra={"request_id": exchange.id})
            return self._refuse(plugin_failed(exc.plugin, exc.hook), "plugin_error")
        except UpstreamError as exc:
            if not exc.sent_nothing:  # lost on the way: the call had begun well
                self._tools.metrics.upstream_error(exc.upstream, exc.reason)
                if (call := exchange.ledger.own_call) is not None:
                    call.outcome = exc.reason
            outcome: Outcome = "truncated" if exc.reason in BROKEN_OFF else "upstream_error"
            return self._refuse(from_upstream(exc, retried=exc.retried), outcome)
        except EventTooLargeError as exc:
            error = UpstreamError(exchange.upstream, "protocol", str(exc), sent_nothing=False)
            self._tools.metrics.upstream_error(error.upstream, error.reason)
            if (call := exchange.ledger.own_call) is not None:
                call.outcome = error.reason
            return self._refuse(from_upstream(error, retried=False), "upstream_error")
        except (ConnectionError, asyncio.CancelledError) as exc:
            if self._is_sent:  # whoever leaves now has the answer
                if self._interruption is not None:
                    return self._sink.break_off()
                raise
            if self._interruption is not None:
                return self._refuse(self._interruption, "truncated")
            self._client_left(exc)
            raise
        except BaseException:
            self._refuse(RequestError(500, "Predawn failed.", type="server_error", code="internal_error"), "error")
            raise
        finally:
            self._sink.quiet()
            await self._end()

    async def _answer(self) -> web.StreamResponse:
        exchange, model, account = self._exchange, self._model, self._account
        pipeline = model.pipeline
        await self._reserve()
        if exchange.stream and pipeline.may_wait:
            self._sink.comment_every(self._tools.keep_alive_comment_s, self._tools.tasks)
        began = perf_counter()
        if pipeline.editors:
            await pipeline.edit(exchange)
        if pipeline.assessors or pipeline.allocators:
            await pipeline.decide(exchange)
            if exchange.budget is not None and exchange.budget.deadline_s is not None:
                exchange.deadline = exchange.started + exchange.budget.deadline_s
        exchange.wants_usage = model.asks_usage or self._identity.needs_usage
        account.asked_at = perf_counter()
        account.plugin_s = account.asked_at - began
        reply = await pipeline.complete(exchange)
        filters = pipeline.open_filters(exchange) if pipeline.filters and reply.ok else ()
        exchange.status = reply.status
        if not reply.ok:
            exchange.outcome = "client_error" if reply.status < 500 else "upstream_error"
        elif exchange.stream and (reply.is_stream or not reply.is_raw):
            return await self._stream(reply, filters)
        return await self._whole(reply, filters)

    async def _reserve(self) -> None:
        exchange, model = self._exchange, self._model
        wanted = model.wanted_output(exchange.head)
        prompt = estimated_prompt_tokens(exchange.body) if self._identity.is_limited else 0
        exchange.lease = self._lease = await self._access.reserve(self._identity, model.price, prompt, wanted)

    async def _stream(self, reply: Reply, filters: Sequence[ChunkFilter]) -> web.StreamResponse:
        exchange, sink = self._exchange, self._sink
        meter = self._account.meter = StreamMeter(exchange.route)
        sink.quiet()
        headers = self._headers(reply)
        for name, value in STREAM_HEADERS.items():
            headers[name] = value
        if exchange.trailers and sink.takes_trailers:
            headers["Trailer"] = ", ".join(exchange.trailers)
        await sink.open(reply.status, headers)
        if reply.is_raw and not filters and reply.source is not None:
            gate = UsageHider() if exchange.hides_usage else WholeEvents()
            await pump_bytes(reply.source, sink, meter, gate, exchange.upstream)
        else:
            upstream, hides = exchange.upstream, exchange.hides_usage
            await pump_chunks(reply, sink, meter, filters, exchange.route, upstream=upstream, hides_usage=hides)
        await self._done_with(reply)
        if not meter.has_ended and self._model.expects_end:
            message = "the stream ended without its end mark"
            raise UpstreamError(exchange.upstream, "truncated", message, sent_nothing=False)
        return await self._finish()

    async def _finish(self) -> web.StreamResponse:
        trailers, sink = self._exchange.trailers, self._sink
        if not trailers or not sink.takes_trailers:
            return await sink.finish()
        self._is_sent = True
        told = {name: await tell() for name, tell in trailers.items()}
        return await sink.finish({name: value for name, value in told.items() if value})

    async def _whole(self, reply: Reply, filters: Sequence[ChunkFilter]) -> web.StreamResponse:
        exchange, sink = self._exchange, self._sink
        folds = bool(filters) or not reply.is_raw or (reply.is_stream and reply.ok and not exchange.stream)
        headers = self._headers(reply)
        if folds or reply.source is None:
            body = await fold_chunks(reply, filters, exchange.route, exchange.upstream)
            headers["Content-Type"] = "application/json"
        else:
            body = await read_body(reply.source, exchange.upstream)
        await self._done_with(reply)
        self._account.usage = usage_of_body(body)
        sink.quiet()
        if sink.opened:  # comments have been sent: what comes now can only be an event
            if not reply.ok:
                return sink.break_off(event_of_error(body, exchange.route))
            shows = not exchange.hides_usage
            for event in stream_of_body(BodyChunk(body), exchange.route, exchange.upstream, include_usage=shows):
                sink.write(event)
            return await self._finish()
        headers["x-request-id"] = exchange.id
        headers["Server"] = "predawn"
        return WholeAnswer(reply.status, headers, body)

    async def _done_with(self, reply: Reply) -> None:
        """All of it has come. Where the exchange stays open for what is late, its connection need not."""
        self._account.upstream_done_at = perf_counter()
        if self._exchange.is_late and reply.source is not None:
            await reply.source.aclose()

    def _headers(self, reply: Reply) -> CIMultiDict[str]:
        headers = reply.headers  # an upstream's are made anew for each reply, a plugin's may be anything
        if not isinstance(headers, CIMultiDict) or reply.source is None:
            headers = CIMultiDict(headers)
        spent_ms = int((perf_counter() - self._exchange.started) * 1000)
        headers.setdefault("openai-processing-ms", str(spent_ms))
        if self._exchange.upstream:
            headers["x-predawn-upstream"] = self._exchange.upstream
        if self._lease is not None:
            headers.update(self._lease.headers)
        return headers

    def _refuse(self, error: RequestError, outcome: Outcome) -> web.StreamResponse:
        exchange, sink = self._exchange, self._sink
        sink.quiet()
        exchange.outcome = outcome
        exchange.error = error.message
        exchange.status = error.status
        if sink.opened:
            return sink.break_off(error_event(error, exchange.route))
        own = {"x-request-id": exchange.id, "Server": "predawn"}
        headers = CIMultiDict({"Content-Type": "application/json", **error.headers, **own})
        return web.Response(body=error_body(error, exchange.route), status=error.status, headers=headers)

    def interrupt(self, error: RequestError) -> None:
        """End it now, for a reason the client is told; a second time would only disturb its end."""
        if self._interruption is None:
            self._interruption = error
            self._request.task.cancel()

    def _client_left(self, exc: BaseException) -> None:
        exchange = self._exchange
        exchange.outcome = "client_closed"
        exchange.status = CLIENT_CLOSED
        if isinstance(exc, ClientStalledError):
            exchange.error = str(exc)
            if self._request.transport is not None:
                self._request.transport.abort()

    async def _end(self) -> None:
        """It is answered. What is still found out about a whole answer belongs to it: such calls are booked, too."""
        self._account.answered_at = perf_counter()
        if self._exchange.is_late and self._exchange.outcome == "ok":
            if self._lease is not None:
                self._lease.answered()
            self._tools.late.add(self)
            self._tools.tasks.spawn(self._end_late(), "end-late")
        else:
            await self._close()

    async def _end_late(self) -> None:
        try:
            await self._exchange.settle()
        finally:
            self._tools.late.discard(self)
            await self._close()

    async def _close(self) -> None:
        """Close, book, and tell; none of it may keep another from happening."""
        exchange, tools = self._exchange, self._tools
        try:
            if exchange.outcome == "client_closed" or self._interruption is not None:
                for call in exchange.ledger.calls:
                    if call.outcome == "pending":
                        call.outcome = "cancelled"
            await exchange.close()
        finally:
            self._account.close(exchange, self._model, tools.metrics)
            ledger = exchange.ledger
            if self._lease is not None:
                self._lease.settle(
                    prompt_tokens=ledger.all_prompt,
                    cached_prompt_tokens=ledger.cached_prompt,
                    output_tokens=ledger.all_output,
                    spend_usd=ledger.spend_usd,
                )
            if exchange.is_late:
                tools.tasks.spawn(tools.observe_late(exchange), "observe-late")
            else:
                tools.observers.done(exchange)
            if tools.log_requests:
                log_request(exchange)
            if tools.feed.is_watched:
                tools.feed.ended(self, exchange, self._account)


def log_request(exchange: Exchange) -> None:
    """A line for one request; never a prompt or an answer."""
    log.info(
        "%s %s %s %d in %.3f s",
        exchange.route,
        exchange.model,
        exchange.outcome,
        exchange.status,
        exchange.ledger.total_s,
        extra={"request_id": exchange.id, "tenant": exchange.tenant, "upstream": exchange.upstream},
    )
