"""Calls asleep on their way: an `Ask` on `App.send`. Streamed, so that it is known at any moment what one has cost."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec

from predawn.plugins import Chunk, Exchange, Reply, RequestError
from predawn.plugins.sleep.asking import Throttled, estimated_tokens
from predawn.plugins.sleep.contexts import Asked, AskOptions, Message
from predawn.plugins.sleep.errors import MOST_READ, fit_to_keep
from predawn.proxy.logs import secrets_in
from predawn.proxy.resilience import retry_after_s
from predawn.proxy.spend import cost_usd
from predawn.proxy.upstreams.base import UpstreamError
from predawn.proxy.wire.openai import Usage

if TYPE_CHECKING:
    from predawn.plugins.sleep.places import Places
    from predawn.proxy.clock import Clock
    from predawn.proxy.lifespan import App

_encode = msgspec.json.Encoder().encode


class Sending:
    """Sends one question at a time; what it cost is told to `booked` whatever comes of it."""

    def __init__(self, app: App, places: Places, booked: Callable[[Exchange], None]) -> None:
        self._send = app.send
        self._clock: Clock = app.clock
        self._places = places
        self._booked = booked
        self._secrets = secrets_in(app.settings)

    async def __call__(self, messages: Sequence[Message], options: AskOptions) -> Asked:
        """Raises `UpstreamError`. Cancelled, it closes the upstream's connection before it ends."""
        exchange = self._exchange(messages, options)
        heard = _Heard(options, estimated_tokens(messages))
        try:
            await self._hear(exchange, heard)
        except UpstreamError as exc:
            exchange.outcome, exchange.error = "upstream_error", exchange.error or self._fit(exc.message)
            raise self._kept(exc) from exc
        except asyncio.CancelledError:
            exchange.outcome, exchange.error = "client_closed", "preempted"
            for call in exchange.ledger.calls[-1:]:
                call.outcome = "cancelled"
            raise
        finally:
            await self._end(exchange, heard)
        return heard.asked()

    async def _end(self, exchange: Exchange, heard: _Heard) -> None:
        """Hang up, and book after whoever came has been sent on: that takes half a millisecond."""
        try:
            await exchange.close()
            await asyncio.sleep(0)
        finally:
            self._write(exchange, heard)
            self._booked(exchange)

    async def _hear(self, exchange: Exchange, heard: _Heard) -> None:
        try:
            reply = await self._send(exchange)
        except RequestError as exc:  # no such model any more, or none that chats
            raise UpstreamError(exchange.model, "protocol", exc.message) from exc
        exchange.status = reply.status
        if not reply.ok:
            exchange.error = f"the upstream answered {reply.status}"  # what it said may quote the context
            raise await _refused(exchange, reply, self._clock)
        async for chunk in reply.chunks:
            heard.saw(chunk)
        if heard.error:
            exchange.error = "the upstream's answer ended in an error"
            raise UpstreamError(exchange.upstream, "protocol", heard.error, sent_nothing=False)
        if not heard.is_whole:
            message = "the stream ended without its end mark"
            raise UpstreamError(exchange.upstream, "truncated", message, sent_nothing=False)

    def _fit(self, said: str) -> str:
        return fit_to_keep(said, self._secrets)

    def _kept(self, exc: UpstreamError) -> UpstreamError:
        """The error as it may be kept in decisions and in the job store."""
        if isinstance(exc, Throttled):
            return Throttled(exc.upstream, self._fit(exc.message), exc.retry_after_s)
        return UpstreamError(exc.upstream, exc.reason, self._fit(exc.message), sent_nothing=exc.sent_nothing)

    def _exchange(self, messages: Sequence[Message], options: AskOptions) -> Exchange:
        request: dict[str, Any] = {"model": options.model, "messages": list(messages), "stream": True, **options.extra}
        if options.thinks is False:
            request |= self._places.less_thought(options.model, "none")
        given = {"max_tokens": options.max_tokens, "temperature": options.temperature, "seed": options.seed}
        request |= {name: value for name, value in given.items() if value is not None}
        if options.logprobs:
            request["logprobs"] = True
        exchange = Exchange(
            _encode(request),
            id=f"sleep_{secrets.token_hex(12)}",
            tenant=options.tenant,
            model=options.model,
            stream=True,
            headers={"Content-Type": "application/json"},
            arrived_at=self._clock.now(),
            started=perf_counter(),
        )
        exchange.call_purpose = "sleep"
        exchange.wants_usage = True
        exchange.decide("sleep", options.purpose, context=options.context_id)
        return exchange

    def _write(self, exchange: Exchange, heard: _Heard) -> None:
        """Put what is known onto the ledger."""
        heard.book(exchange)
        ledger = exchange.ledger
        ledger.total_s = perf_counter() - exchange.started
        price = self._places.price_of(exchange.model)
        ledger.spend_usd = cost_usd(price, ledger.prompt, ledger.cached_prompt, ledger.output)


class _Heard:
    """What has come of an answer."""

    def __init__(self, options: AskOptions, estimate: int) -> None:
        self._used = options.used
        self._estimate = estimate
        """Of the prompt; counts where the upstream does not tell."""
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._logprobs: list[float] | None = [] if options.logprobs else None
        self._usage: Usage | None = None
        self.is_whole = False
        self.error = ""

    def saw(self, chunk: Chunk) -> None:
        self.is_whole = self.is_whole or chunk.is_last
        self._used.prompt_tokens = self._used.prompt_tokens or self._estimate  # an answer comes: it was read
        data: Any = chunk.data
        if not isinstance(data, dict):
            return
        error = data.get("error")
        if error is not None:
            self.error = str(error.get("message") if isinstance(error, dict) else error)[:MOST_READ] or "an error"
        if isinstance(usage := data.get("usage"), dict):
            self._count(usage)
        for choice in choices_of(chunk):
            delta: Any = choice.get("delta")
            if not isinstance(delta, dict):
                delta = {}
            said, thought = delta.get("content"), delta.get("reasoning_content") or delta.get("reasoning")
            if isinstance(said, str) and said:
                self._text.append(said)
            if isinstance(thought, str) and thought:
                self._reasoning.append(thought)
            if said or thought:
                self._used.output_tokens += 1  # a chunk is a token, until the usage comes
            self._see_logprobs(choice.get("logprobs"))
            self.is_whole = self.is_whole or choice.get("finish_reason") is not None

    def _count(self, usage: Mapping[str, Any]) -> None:
        try:
            self._usage = msgspec.convert(usage, Usage, strict=False)
        except msgspec.ValidationError:
            return
        self._used.prompt_tokens = self._usage.prompt or self._estimate
        self._used.output_tokens = self._usage.output or self._used.output_tokens

    def _see_logprobs(self, logprobs: Any) -> None:
        if self._logprobs is not None and isinstance(logprobs, dict):
            tokens: Any = logprobs.get("content")
            tokens = tokens if isinstance(tokens, list) else []
            found = [token.get("logprob") for token in tokens if isinstance(token, dict)]
            self._logprobs += [value for value in found if isinstance(value, (int, float))]

    def book(self, exchange: Exchange) -> None:
        """Write what is known onto the call's ledger."""
        ledger = exchange.ledger
        ledger.prompt, ledger.output = self._used.prompt_tokens, self._used.output_tokens
        ledger.estimated = self._usage is None
        if self._usage is not None:
            ledger.cached_prompt, ledger.reasoning = self._usage.cached, self._usage.reasoning
        if ledger.calls:
            ledger.calls[-1].prompt_tokens, ledger.calls[-1].output_tokens = ledger.prompt, ledger.output

    def asked(self) -> Asked:
        return Asked(
            text="".join(self._text),
            reasoning="".join(self._reasoning),
            prompt_tokens=self._used.prompt_tokens,
            output_tokens=self._used.output_tokens,
            cached_tokens=self._usage.cached if self._usage is not None else 0,
            logprobs=tuple(self._logprobs) if self._logprobs else None,
        )


def choices_of(chunk: Chunk) -> list[dict[str, Any]]:
    """The choices of a chunk of chat completions, if it is one: upstreams send what they like."""
    data: Any = chunk.data
    choices: Any = data.get("choices") if isinstance(data, dict) else None
    return [one for one in choices if isinstance(one, dict)] if isinstance(choices, list) else []


async def _refused(exchange: Exchange, reply: Reply, clock: Clock) -> UpstreamError:
    """The error that an upstream answered instead."""
    status = reply.status
    said = b""
    if reply.source is not None:
        async for data in reply.source:
            said += data
            if len(said) > MOST_READ:
                break
    reason: Any = "429" if status == 429 else "5xx" if status >= 500 else "protocol"
    message = f"{status}: {said[:MOST_READ].decode('utf-8', 'replace')}"
    if reason == "429":
        return Throttled(exchange.upstream, message, retry_after_s(reply.headers, clock))
    return UpstreamError(exchange.upstream, reason, message, sent_nothing=True)
