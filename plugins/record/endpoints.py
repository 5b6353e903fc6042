"""`GET /v1/exchanges` and `GET /v1/exchanges/{id}`: what a tenant's own requests cost and why."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from predawn.plugins import RequestError
from predawn.proxy import history
from predawn.proxy.store_errors import StoreError

if TYPE_CHECKING:
    from aiohttp import web

    from predawn.plugins.record.writer import OpenStore, Writer
    from predawn.proxy.http_server import Request

log = logging.getLogger("predawn.record")
MAX_LIMIT = 100


class Endpoints:
    """Reads the store and what is still on its way there."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.open_store: OpenStore | None = None
        """Set when the server starts."""

    async def one(self, request: Request) -> web.Response:
        tenant: str = request["identity"].tenant
        return _json(history.detail(await self._find(tenant, request.match_info["id"])))

    async def many(self, request: Request) -> web.Response:
        tenant: str = request["identity"].tenant
        limit = _limit(request.query.get("limit", "20"))
        before: tuple[float, str] | None = None
        if ident := request.query.get("before"):
            row = await self._find(tenant, ident)
            before = (row["arrived_at"], row["id"])
        waiting = [
            snapshot
            for snapshot in self._writer.waiting()
            if snapshot.tenant == tenant and (before is None or (snapshot.arrived_at, snapshot.id) < before)
        ]
        rows = {row["id"]: row for row in await self._page(tenant, limit + 1, before)}
        for snapshot in waiting:
            rows.setdefault(snapshot.id, snapshot.row())
        newest = sorted(rows.values(), key=lambda row: (row["arrived_at"], row["id"]), reverse=True)
        shown = newest[:limit]
        return _json(
            {
                "object": "list",
                "data": [history.summary(row) for row in shown],
                "first_id": shown[0]["id"] if shown else None,
                "last_id": shown[-1]["id"] if shown else None,
                "has_more": len(newest) > limit,
            }
        )

    async def _find(self, tenant: str, ident: str) -> history.Row:
        """An exchange of this tenant; raises `RequestError` 404 for any other."""
        for snapshot in self._writer.waiting():
            if snapshot.id == ident and snapshot.tenant == tenant:
                return snapshot.row()
        try:
            row = await history.find(await self._opened(), tenant, ident)
        except StoreError as exc:
            raise _unavailable(exc) from exc
        if row is None:
            raise RequestError(404, f"There is no exchange {ident[:128]!r}.", code="exchange_not_found", param="id")
        return row

    async def _page(self, tenant: str, limit: int, before: tuple[float, str] | None) -> list[history.Row]:
        try:
            return await history.page(await self._opened(), tenant, limit=limit, before=before)
        except StoreError as exc:
            raise _unavailable(exc) from exc

    async def _opened(self) -> Any:
        if self.open_store is None:
            raise RequestError(503, "The server is starting.", type="server_error", code="not_ready")
        return await self.open_store()


def _limit(text: str) -> int:
    limit = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not 1 <= limit <= MAX_LIMIT:
        raise RequestError(400, f"limit must be a number from 1 to {MAX_LIMIT}.", param="limit")
    return limit


def _unavailable(exc: Exception) -> RequestError:
    log.warning("exchanges cannot be read: %s", exc)
    return RequestError(503, "The store cannot be read now.", type="server_error", code="store_unavailable")


def _json(data: dict[str, Any]) -> web.Response:
    from aiohttp import web

    return web.Response(body=msgspec.json.encode(data), content_type="application/json")
