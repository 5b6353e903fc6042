"""`/openapi.json`: what this server's own surface looks like to tools that read such documents."""

from __future__ import annotations

import functools
from importlib.resources import files

from aiohttp import web


@functools.cache
def _text() -> bytes:
    return (files("predawn.proxy.api") / "openapi.json").read_bytes()


def document() -> web.Response:
    """The document, as it is committed."""
    return web.Response(body=_text(), content_type="application/json")
