"""The body that goes to an upstream: the client's own bytes wherever nothing must differ."""

from __future__ import annotations

import msgspec

from predawn.proxy.exchange import Exchange
from predawn.proxy.wire.openai import read_head, upstream_body
from predawn.proxy.wire.patch import patch

_decode = msgspec.json.Decoder().decode


def outgoing_body(exchange: Exchange, model: str, output_limit: int | None) -> bytes:
    """What to send for `model`; see `openai.upstream_body` for what may differ from the client's bytes."""
    body, head = exchange.body, exchange.head
    if exchange.edited:
        body = patch(body, _decode(body), dict(exchange.request))
        head = read_head(body)
    elif head is None:
        head = exchange.head = read_head(body)
    asked = head.stream_options is not None and head.stream_options.include_usage is True
    hides = exchange.wants_usage and exchange.stream and not asked and exchange.route in ("chat", "completions")
    exchange.hides_usage = hides
    budget = exchange.budget.max_output_tokens if exchange.budget is not None else None
    limits = [limit for limit in (output_limit, budget) if limit is not None]
    return upstream_body(body, head, model=model, ask_usage=hides, output_limit=min(limits, default=None))
