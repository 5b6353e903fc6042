"""Which requests have the same answer: a digest over everything that the answer depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import astuple
from typing import Any

import msgspec

from predawn.plugins import Exchange

_encode = msgspec.json.Encoder(order="sorted").encode

DELIVERY = frozenset({"stream", "stream_options", "metadata"})
"""Members that say how an answer is delivered or filed, not what it is. `user` and its like stay in the key: end users
of one tenant share no answers."""
_FOLDED_ROUTES = frozenset({"chat", "completions", "embeddings"})
"""Where an answer kept as a stream serves a client that does not stream, and the other way round."""
_HEADERS = ("openai-beta", "anthropic-beta", "anthropic-version")


def key_of(exchange: Exchange, namespace: str) -> bytes:
    """32 bytes that are equal only for equal tenants, namespaces, models, endpoints and canonical requests."""
    request = {name: value for name, value in exchange.request.items() if name not in DELIVERY}
    control = {name: value for name, value in exchange.control.items() if name != "cache"}
    parts = (
        exchange.tenant.encode(),
        namespace.encode(),
        exchange.model.encode(),
        exchange.route.encode(),
        exchange.path.encode(),
        b"" if exchange.route in _FOLDED_ROUTES else bytes([exchange.stream]),
        _encode(request),
        _encode(control),
        _encode(astuple(exchange.budget) if exchange.budget is not None else None),
        _encode(_headers(exchange.headers)),
    )
    return hashlib.sha256(joined(parts)).digest()


def joined(parts: Iterable[bytes]) -> bytes:
    """The parts, each after its length: no two sequences of parts give the same bytes."""
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def _headers(headers: Mapping[str, str]) -> dict[str, Any]:
    """Headers by which clients choose versions of an API."""
    return {name.lower(): value for name, value in headers.items() if name.lower() in _HEADERS}


def is_deterministic(request: Mapping[str, Any], route: str) -> bool:
    """True where the client asked for the same answer each time: embeddings, temperature 0, or a seed."""
    temperature = request.get("temperature")
    is_zero = isinstance(temperature, (int, float)) and not isinstance(temperature, bool) and temperature == 0
    return route == "embeddings" or is_zero or request.get("seed") is not None


def has_effects(request: Mapping[str, Any]) -> bool:
    """True where a provider does more than answer: keeps the answer for later, or goes on in the background."""
    return bool(request.get("background")) or request.get("store") is True or request.get("conversation") is not None


def is_unambiguous(body: bytes) -> bool:
    """False where an object names a member twice: the upstream might read another request than the key was made of."""
    try:
        json.loads(body, object_pairs_hook=_distinct)
    except (ValueError, RecursionError):
        return False
    return True


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is named twice")
    return members
