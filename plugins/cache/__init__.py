"""`cache`: the same request of the same tenant gets the same answer, without asking the upstream again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from predawn.plugins import CallNext, Chunk, Exchange, Plugin, PluginSettings, Reply, RequestError, hookimpl
from predawn.plugins.cache.answers import Answer, Answers, Piece
from predawn.plugins.cache.complete import Completeness
from predawn.plugins.cache.key import has_effects, is_deterministic, is_unambiguous, key_of
from predawn.proxy.clock import Clock, SystemClock
from predawn.proxy.exchange import RouteName
from predawn.proxy.wire.fold import BodyChunk

if TYPE_CHECKING:
    from predawn.proxy.lifespan import App

__all__ = ["CachePlugin", "CacheSettings"]

HEADER = "x-predawn-cache"
_ROUTES: frozenset[RouteName] = frozenset({"chat", "completions", "responses", "embeddings", "messages"})
_WISHES: Mapping[Any, Literal["yes", "no", "refresh"]] = {
    **dict.fromkeys((True, 1, "true", "on", "yes"), "yes"),
    **dict.fromkeys((False, 0, "false", "off", "no"), "no"),
    "refresh": "refresh",
}


class CacheSettings(PluginSettings):
    mode: Literal["deterministic", "all"] = Field(
        default="deterministic",
        description="Which requests may be answered from memory: those with temperature 0 or a seed, and embeddings; "
        "or all of them.",
    )
    ttl_s: float = Field(default=3600, gt=0, description="How long an answer may be given again.")
    max_entries: int = Field(default=10_000, ge=1, description="Answers kept at most.")
    max_bytes: int = Field(default=64 << 20, ge=1, description="Memory for answers at most.")
    max_answer_bytes: int = Field(default=1 << 20, ge=1, description="Longer answers are not kept.")
    namespace: str = Field(default="", description="Change it, and all that was kept counts no more.")


class CachePlugin(Plugin[CacheSettings]):
    """Keeps complete answers in this process's memory. Equal requests at the same time each ask the upstream."""

    settings_type: ClassVar[type[PluginSettings]] = CacheSettings
    # A stream kept without its usage could not serve the next client, who asks for it.
    wants_usage: ClassVar[bool] = True

    def __init__(self, settings: CacheSettings) -> None:
        super().__init__(settings)
        self.answers = Answers(settings.max_entries, settings.max_bytes, settings.ttl_s)
        self._clock: Clock = SystemClock()

    @hookimpl
    async def lifespan(self, app: App) -> AsyncIterator[None]:
        self._clock = app.clock
        yield

    @hookimpl
    async def around_completion(self, exchange: Exchange, call_next: CallNext) -> Reply:
        wish = self._wish(exchange)
        if wish == "no":
            return await call_next(exchange)
        key = key_of(exchange, self.settings.namespace)
        if wish != "refresh":
            answer = self.answers.get(key, exchange.tenant, self._clock.monotonic())
            if answer is not None:
                return _again(exchange, answer, self._clock.monotonic())
        reply = await call_next(exchange)
        if reply.status != 200 or not is_unambiguous(exchange.body):
            return reply
        exchange.decide("cache", "miss" if wish == "yes" else "refresh")
        return _marked(reply, self._keeping(exchange, reply, key))

    def _wish(self, exchange: Exchange) -> Literal["yes", "no", "refresh"]:
        """What the client asks for, or what the settings say of such a request. Raises `RequestError`."""
        if exchange.route not in _ROUTES:
            return "no"
        asked = exchange.control.get("cache")
        wish = None
        if asked is not None:
            wish = _WISHES.get(asked.lower() if isinstance(asked, str) else asked) if _is_plain(asked) else None
            if wish is None:
                raise RequestError(400, "cache must be true, false or refresh.", param="predawn.cache")
        if wish == "no" or has_effects(exchange.request):
            return "no"
        if wish is None and self.settings.mode == "deterministic":
            return "yes" if is_deterministic(exchange.request, exchange.route) else "no"
        return wish or "yes"

    async def _keeping(self, exchange: Exchange, reply: Reply, key: bytes) -> AsyncIterator[Chunk]:
        """The answer's chunks; once all of them have passed, they are kept. A client that leaves early ends it."""
        pieces: list[Piece] | None = []
        size = 0
        completeness = Completeness(exchange.route)
        streamed = reply.is_stream
        async for chunk in reply.chunks:
            if pieces is not None:
                completeness.saw(chunk)
                raw = chunk.raw
                size += len(raw)
                pieces.append(Piece(raw, chunk.event, chunk.is_last))
                if size > self.settings.max_answer_bytes:
                    pieces = None
                elif completeness.is_whole:
                    self._keep(exchange, reply, key, pieces, streamed=streamed)
                    pieces = None
            yield chunk

    def _keep(self, exchange: Exchange, reply: Reply, key: bytes, pieces: list[Piece], *, streamed: bool) -> None:
        answer = Answer(
            exchange.tenant,
            tuple(pieces),
            streamed,
            reply.headers.get("Content-Type", "application/json"),
            exchange.upstream,
            exchange.upstream_model,
            self._clock.monotonic(),
        )
        self.answers.put(key, answer)


def _is_plain(value: Any) -> bool:
    return isinstance(value, (str, bool, int))


def _marked(reply: Reply, chunks: AsyncIterator[Chunk]) -> Reply:
    headers: Any = reply.headers
    copied = headers.copy() if hasattr(headers, "copy") else dict(headers)
    copied[HEADER] = "miss"
    return Reply(reply.status, copied, source=reply.source, chunks=chunks, split=reply.split)


def _again(exchange: Exchange, answer: Answer, now: float) -> Reply:
    """A kept answer for another client, who may want its usage or not."""
    age_s = now - answer.made_at
    exchange.decide("cache", "hit", age_s=age_s, upstream=answer.upstream, upstream_model=answer.upstream_model)
    if exchange.stream and exchange.route in ("chat", "completions"):
        options = exchange.request.get("stream_options")
        exchange.hides_usage = not (isinstance(options, dict) and options.get("include_usage") is True)
    content_type = answer.content_type
    headers = {"Content-Type": content_type, HEADER: "hit", "age": str(int(age_s))}
    return Reply.of_chunks(_replayed(answer), headers=headers)


async def _replayed(answer: Answer) -> AsyncIterator[Chunk]:
    for piece in answer.pieces:
        if answer.streamed:
            yield Chunk(piece.raw, event=piece.event, is_last=piece.is_last)
        else:
            yield BodyChunk(piece.raw)
