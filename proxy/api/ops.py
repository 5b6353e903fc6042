"""`/health`, `/ready`, `/version` and `/metrics`: for those who run the server."""

from __future__ import annotations

import asyncio
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web
from multidict import CIMultiDict

from predawn.proxy.answer import WholeAnswer
from predawn.proxy.exposition import pause, render

if TYPE_CHECKING:
    from collections.abc import Mapping

    from predawn.proxy.http_server import Request
    from predawn.proxy.metrics import Metrics


def health(engines: Mapping[str, str]) -> web.Response:
    """The process runs and its loop turns; how its local engines are doing, if it has any."""
    return answer({"status": "ok", **_told(engines)})


def ready(engines: Mapping[str, str], *, is_ready: bool) -> web.Response:
    """200 while new requests are welcome, else 503."""
    return answer({"status": "ready" if is_ready else "not ready", **_told(engines)}, status=200 if is_ready else 503)


def _told(engines: Mapping[str, str]) -> dict[str, Any]:
    return {"engines": engines} if engines else {}


def build() -> web.Response:
    """What runs."""
    return answer({"version": version("predawn"), "python": platform.python_version()})


async def scrape(request: Request, metrics: Metrics) -> web.StreamResponse:
    """The metrics, rendered in a thread and in slices so that a large page delays no token."""
    metrics.postponed.settle()
    body, content_type = await asyncio.to_thread(render, metrics, request.headers.get("Accept", ""), pause)
    if request.method == "HEAD":
        return web.Response(headers={"Content-Type": content_type})
    return WholeAnswer(200, CIMultiDict({"Content-Type": content_type}), body)


def answer(data: dict[str, Any], status: int = 200) -> web.Response:
    """A JSON response."""
    return web.Response(body=msgspec.json.encode(data), status=status, content_type="application/json")
