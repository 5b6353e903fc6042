"""`GET /v1/models` and `/v1/models/{id}`: the aliases, as OpenAI lists models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from predawn.proxy.exchange import RequestError
from predawn.proxy.problems import unknown
from predawn.proxy.upstreams.base import UpstreamError

if TYPE_CHECKING:
    from predawn.proxy.access import Identity
    from predawn.proxy.service import Service

CREATED = 1_700_000_000
"""Aliases have no date of their own; clients require one."""


async def list_models(service: Service, identity: Identity) -> web.Response:
    """Every alias the caller may use; behind `*` also what the upstreams list."""
    names = await _names(service, identity)
    return _json({"object": "list", "data": [_model(name) for name in names]})


async def get_model(service: Service, identity: Identity, name: str) -> web.Response:
    """One alias. Raises `RequestError` 404 with the nearest names."""
    names = await _names(service, identity)
    if name not in names:
        message = f"{unknown('model', name[:200], names)}."
        raise RequestError(404, message, code="model_not_found", param="model")
    return _json(_model(name))


async def _names(service: Service, identity: Identity) -> list[str]:
    names = dict.fromkeys(service.models.names)
    if (model := service.models.any) is not None:
        for target in model.sender.tiers[0].targets:
            try:
                names.update(dict.fromkeys(await target.station.upstream.models()))
            except UpstreamError:
                continue  # the list is shorter while an upstream is away
    allowed = identity.key.models if identity.key is not None else None
    return [name for name in names if allowed is None or name in allowed]


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "predawn"}


def _json(data: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(data), content_type="application/json")
