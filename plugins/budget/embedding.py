"""Nearest outcomes by meaning: the embedding of what was asked, cut down to sixteen numbers that similar texts share.

Each number is four signs of sparse random projections (Charikar's SimHash in bands), so that the same index finds
neighbours by embeddings as by words. 80 µs of arithmetic, and the wait for the upstream that embeds.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from predawn.plugins import Exchange, RequestError
from predawn.plugins.budget.features import SKETCH, question_of
from predawn.proxy.spend import cost_usd
from predawn.proxy.upstreams.base import UpstreamError

if TYPE_CHECKING:
    from predawn.plugins import App

log = logging.getLogger("predawn.budget")
BITS: Final = 4
PAIRS: Final = 8
"""Pairs of coordinates whose differences make a projection."""
MOST_CHARS: Final = 8_000
MOST_BYTES: Final = 1 << 20
FIRST: Final = 1 << 40
"""Hashes of words are smaller, so the two kinds never meet."""


class Embedder:
    """Asks one alias for embeddings. What goes wrong is logged, and the words count instead."""

    def __init__(self, app: App, alias: str, timeout_s: float) -> None:
        self._app = app
        self._alias = alias
        self._timeout_s = timeout_s
        self._planes: dict[int, list[list[tuple[int, int]]]] = {}

    async def sketch(self, exchange: Exchange) -> tuple[int, ...] | None:
        """The sketch of what the exchange asks; `None` if there is none in time. Its cost is booked as discarded."""
        text = question_of(exchange.route, exchange.request).text[-MOST_CHARS:]
        if not text.strip():
            return None
        try:
            async with asyncio.timeout(self._timeout_s):
                vector = await self._embedded(exchange, text)
        except (TimeoutError, RequestError, UpstreamError) as exc:
            log.warning("no embedding came of %s: %s", self._alias, exc or "too slow")
            return None
        return self._sketched(vector) if vector is not None else None

    async def _embedded(self, parent: Exchange, text: str) -> list[float] | None:
        request = {"model": self._alias, "input": text, "encoding_format": "float"}
        exchange = Exchange(
            msgspec.json.encode(request),
            id=parent.id,
            route="embeddings",
            path="/embeddings",
            tenant=parent.tenant,
            key_id=parent.key_id,
            model=self._alias,
            headers=parent.headers,
            arrived_at=parent.arrived_at,
            started=perf_counter(),
        )
        exchange.call_purpose = "probe"
        exchange.parent = parent
        body = b""
        told: dict[str, Any] = {}
        try:
            reply = await self._app.send(exchange)
            if reply.ok and reply.source is not None:
                async for data in reply.source:
                    body += data
                    if len(body) > MOST_BYTES:
                        return None
                told = decoded(body)
        finally:
            await exchange.close()
            self._book(parent, exchange, told)
        return vector_of(told)

    def _book(self, parent: Exchange, exchange: Exchange, told: dict[str, Any]) -> None:
        usage: Any = told.get("usage")
        tokens: Any = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        if type(tokens) is not int or not 0 <= tokens <= 1 << 40:
            tokens = 0
        for call in exchange.ledger.calls:
            call.phase, call.alias, call.booked, call.prompt_tokens = "discarded", self._alias, True, 0
        for call in exchange.ledger.calls[-1:]:
            call.prompt_tokens = tokens
        parent.ledger.calls += exchange.ledger.calls
        parent.ledger.discarded_prompt += tokens
        parent.ledger.spend_usd += cost_usd(exchange.price, tokens, 0, 0)

    def _sketched(self, vector: Sequence[float]) -> tuple[int, ...]:
        planes = self._planes.get(len(vector))
        if planes is None:
            if len(self._planes) > 4:  # a model has one length
                return ()
            planes = self._planes[len(vector)] = planes_for(len(vector))
        bits = [sum(vector[one] - vector[other] for one, other in plane) > 0 for plane in planes]
        return tuple(
            FIRST + band * (1 << BITS) + sum(bit << at for at, bit in enumerate(bits[band * BITS : (band + 1) * BITS]))
            for band in range(SKETCH)
        )


def planes_for(length: int) -> list[list[tuple[int, int]]]:
    """The same for all servers and at all times."""
    draw = random.Random(length)  # noqa: S311 - no secret
    return [[(draw.randrange(length), draw.randrange(length)) for _ in range(PAIRS)] for _ in range(SKETCH * BITS)]


def decoded(body: bytes) -> dict[str, Any]:
    try:
        told: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return {}
    return told if isinstance(told, dict) else {}


def vector_of(told: dict[str, Any]) -> list[float] | None:
    """The first embedding of a reply; `None` for what is none."""
    data: Any = told.get("data")
    first: Any = data[0] if isinstance(data, list) and data else None
    vector: Any = first.get("embedding") if isinstance(first, dict) else None
    if not isinstance(vector, list) or len(vector) < SKETCH:
        return None
    return vector if all(type(one) in {int, float} for one in vector) else None
