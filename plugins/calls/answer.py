"""The reply that a client gets of several calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from predawn.plugins import Chunk, Reply
from predawn.plugins.calls.side import OPEN
from predawn.proxy.exchange import closing
from predawn.proxy.joining import Passing, listening_to
from predawn.proxy.ledger import Ledger
from predawn.proxy.upstreams.base import UpstreamError

if TYPE_CHECKING:
    from predawn.plugins import Exchange
    from predawn.plugins.calls.side import SideCall
    from predawn.proxy.joining import Listen, Take


MESSAGE_PROMPT: Final = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
"""Which members make up the prompt of a message."""


def usage_of_calls(exchange: Exchange) -> dict[str, Any]:
    """What `usage.predawn` says of an exchange now, calls that still run included."""
    running = _running(exchange)
    ledger = _ledger_now(exchange)
    told: dict[str, Any] = {
        "calls": len(exchange.ledger.calls) + sum(len(side.exchange.ledger.calls) for side in running),
        "samples": _samples(exchange, running),
        "discarded_tokens": ledger.discarded,
        "discarded_prompt_tokens": ledger.discarded_prompt,
        "verify_tokens": ledger.verify,
        "verify_prompt_tokens": ledger.verify_prompt,
    }
    if ledger.estimated:
        told["estimated"] = True
    return told


def _running(exchange: Exchange) -> list[SideCall]:
    running: set[SideCall] = exchange.state.get(OPEN, set())
    return list(running)


def _samples(exchange: Exchange, running: list[SideCall]) -> int:
    answers = [call for call in exchange.ledger.calls if call.purpose == "sample" and call.status < 400]
    return len(answers) + sum(side.purpose == "sample" for side in running)


def _ledger_now(exchange: Exchange) -> Ledger:
    """The ledger as it would be if everything ended now."""
    booked = exchange.ledger
    now = Ledger(
        booked.prompt,
        booked.cached_prompt,
        booked.output,
        booked.reasoning,
        booked.discarded,
        booked.discarded_prompt,
        booked.verify,
        booked.verify_prompt,
        estimated=booked.estimated,
    )
    for side in _running(exchange):
        entry, inner = side.entry, side.exchange.ledger
        entry.write(now)
        now.discarded += inner.discarded
        now.discarded_prompt += inner.discarded_prompt
        now.verify += inner.verify
        now.verify_prompt += inner.verify_prompt
        now.estimated = now.estimated or entry.tokens.estimated
    return now


def standard_usage(exchange: Exchange) -> dict[str, Any]:
    """The answer's own tokens in the members that clients of its API read."""
    ledger = _ledger_now(exchange)
    prompt, output = ledger.prompt, ledger.output
    if exchange.route == "messages":  # where the prompt is told without what was cached
        cached = ledger.cached_prompt
        told = dict(zip(MESSAGE_PROMPT, (prompt - cached, cached, 0), strict=True))
        return {**told, "output_tokens": output}
    if exchange.route == "responses":
        return {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": ledger.cached_prompt},
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": ledger.reasoning},
            "total_tokens": prompt + output,
        }
    usage: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
    if ledger.cached_prompt:
        usage["prompt_tokens_details"] = {"cached_tokens": ledger.cached_prompt}
    if ledger.reasoning:
        usage["completion_tokens_details"] = {"reasoning_tokens": ledger.reasoning}
    return usage


def _with(usage: Mapping[str, Any], standard: Mapping[str, Any]) -> dict[str, Any]:
    """A usage with other counts; what only an upstream knows of them stays."""
    details = {
        name: {**usage[name], **told}
        for name, told in standard.items()
        if isinstance(told, dict) and isinstance(usage.get(name), dict)
    }
    return {**usage, **standard, **details}


def _is_same(usage: Mapping[str, Any], standard: Mapping[str, Any]) -> bool:
    """Whether an upstream's usage has the totals of the answer."""
    if "cache_read_input_tokens" in standard:
        parts = [usage.get(name) for name in MESSAGE_PROMPT]
        prompt = sum(part for part in parts if isinstance(part, int))
        is_silent = "input_tokens" not in usage  # the message's first event has told it
        is_asked = is_silent or prompt == sum(int(standard[name]) for name in MESSAGE_PROMPT)
        return is_asked and bool(usage.get("output_tokens") == standard["output_tokens"])
    names = [name for name in standard if name.endswith("_tokens") and name != "total_tokens"]
    return all(usage.get(name) == standard[name] for name in names)


def answer(
    side: SideCall,
    *,
    chunks: AsyncIterator[Chunk] | None = None,
    more: Callable[[], Mapping[str, Any]] = dict,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """Answer with a call that has been begun, which is chosen by this: what came of it already, the rest as it comes.

    `chunks` goes out in place of the call's own. The usage is that of the answer on the ledger, with `usage.predawn`
    beside it, to which `more` adds when the answer ends. Until then the call must stay open, so leave closing it to the
    reply and to the client's exchange rather than to a context, unless it has been heard to its end.
    """
    if not side.is_chosen:
        side.choose()
    exchange, reply = side.parent, side.reply
    assert reply is not None, "a call is an answer once it has begun"
    exchange.hides_usage = exchange.stream and not _asks_for_usage(exchange)
    told = _Telling(exchange, more)
    if chunks is None:
        chunks = _of(side)
    telling, listen = told.over(chunks, side), listening_to(chunks)
    said: AsyncIterator[Chunk] = telling if listen is None else told.passing(telling, listen)
    return Reply.of_chunks(said, status=reply.status, headers={**reply.headers, **(headers or {})})


def _asks_for_usage(exchange: Exchange) -> bool:
    if exchange.route not in ("chat", "completions"):
        return True  # it is a part of these dialects
    if exchange.head is not None and not exchange.edited:  # a long prompt need not be decoded for it
        options = exchange.head.stream_options
        return options is not None and options.include_usage is True
    given = exchange.request.get("stream_options")
    return isinstance(given, dict) and given.get("include_usage") is True


async def _of(side: SideCall) -> AsyncIterator[Chunk]:
    """What came of a call, and what still comes; the call is closed with this."""
    try:
        async with closing(chunks := side.follow()):
            async for chunk in chunks:
                yield chunk
    except UpstreamError:
        if not side.heard.error:  # else an event has said so
            raise
    finally:
        await side.close()


class _Telling:
    """Puts the usage into an answer that is about to end."""

    def __init__(self, exchange: Exchange, more: Callable[[], Mapping[str, Any]]) -> None:
        self._exchange = exchange
        self._more = more
        self._last: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._is_begun = False
        """True while there is something to be said and nothing is held back."""

    def passing(self, said: AsyncGenerator[Chunk, None], listen: Listen[Chunk]) -> Passing[Chunk]:
        """What is said, of which nearly all may be taken where it comes."""

        def listen_for(take: Take[Chunk] | None) -> None:
            listen(partial(self._take, take) if take is not None else None)

        return Passing(said, listen_for)

    def _take(self, take: Take[Chunk], chunks: Collection[Chunk]) -> bool:
        """Hand on chunks of which the usage is no part; the others are told of as they are iterated over."""
        if not self._is_begun:
            return False
        for chunk in chunks:
            if chunk.is_last or b'"usage"' in chunk.raw:
                return False
        return take(chunks)

    async def over(self, chunks: AsyncIterator[Chunk], side: SideCall) -> AsyncGenerator[Chunk, None]:
        is_events = self._exchange.route in ("responses", "messages")
        held: Chunk | None = None
        async with closing(chunks):
            async for chunk in chunks:
                if held is not None:
                    yield self._ending(held)
                held = None
                self._is_begun = not chunk.is_last
                if is_events:
                    yield self._event(chunk)
                elif chunk.is_last:
                    held = chunk  # until the call is over, and booked
                elif not self._is_usage(chunk):
                    yield chunk
        if held is not None:
            if held.data is None:
                yield self._usage_chunk()
            yield self._ending(held)
        elif side.is_whole and not is_events:
            yield self._usage_chunk()  # of an upstream that ends without a mark

    def _is_usage(self, chunk: Chunk) -> bool:
        """True for the chunk whose only content is the usage: ours comes in its place."""
        if self._last and b'"usage"' not in chunk.raw:
            return False  # as nearly all are: nothing needs to be decoded
        data = chunk.data
        if data is None:
            return False
        if data.get("choices"):
            if not self._last:
                self._last = {name: value for name, value in data.items() if name not in ("choices", "usage")}
            return False
        if not isinstance(data.get("usage"), dict):
            return False
        self._usage = data["usage"]
        self._last = {name: value for name, value in data.items() if name != "usage"}
        return True

    def _usage_chunk(self) -> Chunk:
        return Chunk.of({**self._last, "choices": [], "usage": self._told(self._usage)})

    def _ending(self, chunk: Chunk) -> Chunk:
        """The end mark, or a whole body with its usage."""
        data = chunk.data
        if data is None or "error" in data:
            return chunk
        usage = data.get("usage")
        return chunk.with_data({**data, "usage": self._told(usage if isinstance(usage, dict) else {})})

    def _event(self, chunk: Chunk) -> Chunk:
        data = chunk.data
        if data is None:
            return chunk
        if isinstance(usage := data.get("usage"), dict) and data.get("type") in ("message_delta", "message", None):
            return chunk.with_data({**data, "usage": self._told(usage)})
        response = data.get("response")
        if isinstance(response, dict) and isinstance(usage := response.get("usage"), dict):
            return chunk.with_data({**data, "response": {**response, "usage": self._told(usage)}})
        return chunk

    def _told(self, usage: Mapping[str, Any]) -> dict[str, Any]:
        """The upstream's own usage where it is the answer's, else the answer's, and all that is beside it."""
        exchange = self._exchange
        if not exchange.ledger.is_answer_booked and not any(side.is_chosen for side in _running(exchange)):
            return self._beside(usage)  # it was answered from here
        standard = standard_usage(exchange)
        return self._beside(usage if _is_same(usage, standard) else _with(usage, standard))

    def _beside(self, usage: Mapping[str, Any]) -> dict[str, Any]:
        return {**usage, "predawn": {**usage_of_calls(self._exchange), **self._more()}}
