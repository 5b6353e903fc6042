"""`/v1/contexts`: a tenant's own contexts, registered, shown, slept on and forgotten."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import msgspec

from predawn.plugins import RegisterRoute, RequestError
from predawn.plugins.sleep.contexts import SLEEPABLE, Anticipated, Context, Notes, SleepOptions
from predawn.plugins.sleep.forgetting import Purger, forget
from predawn.plugins.sleep.keeping import keep
from predawn.plugins.sleep.shelf import Came, ContextLimit, Shelf
from predawn.plugins.sleep.wishes import Limits, read_draft, read_options
from predawn.proxy.problems import unknown
from predawn.proxy.store_errors import StoreError

if TYPE_CHECKING:
    from aiohttp import web

    from predawn.plugins.sleep.index import Index
    from predawn.proxy.clock import Clock
    from predawn.proxy.http_server import Request

OpenShelf: TypeAlias = "Callable[[], Awaitable[Shelf]]"
Regret: TypeAlias = "Callable[[str, str], Awaitable[int]]"
log = logging.getLogger("predawn.sleep")
MAX_LIMIT = 100
SOURCES = ("registered", "discovered")
ENVELOPE_BYTES = 1 << 20
"""What a body may have beside its content: escapes, indentation, options."""


class Sleeper(Purger, Protocol):
    """What clients set in motion."""

    async def came(self, context: Context, came: Came) -> None:
        """A context was registered, or has a new version, or was registered again as it is."""
        ...

    async def asked(self, context: Context, options: SleepOptions) -> str:
        """A client wants this context to be slept on now. `options` go before its own. Called in a sleepable state.

        Returns why nothing will be done, in words for the client; empty if it will.
        """
        ...

    def waits_for(self, tenant: str, context_id: str) -> dict[str, Any] | None:
        """Why a context is not being slept on right now, as far as this process knows; `None` if nothing keeps it."""
        ...

    def waits_elsewhere(self, context: Context, decision: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """The same for what another process has begun, by what the store tells and this process's own gate."""
        ...


class Endpoints:
    """Registers, shows and forgets contexts. The members without a default are set when the server starts."""

    def __init__(self, limits: Limits, namespace: str = "") -> None:
        self._limits = limits
        self._namespace = namespace
        self.open_shelf: OpenShelf | None = None
        self.index: Index | None = None
        self.sleeper: Sleeper | None = None
        self.clock: Clock | None = None
        self.regretted: Regret | None = None
        self.settled: Callable[[], Awaitable[None]] | None = None
        self.models: frozenset[str] | None = None
        """The aliases there are; `None` where any name is taken."""

    def register(self, register: RegisterRoute) -> None:
        """Add the endpoints."""
        register("POST", "/v1/contexts", self.create)
        register("GET", "/v1/contexts", self.many)
        register("GET", "/v1/contexts/{id}", self.one)
        register("DELETE", "/v1/contexts/{id}", self.forget)
        register("POST", "/v1/contexts/{id}/sleep", self.sleep)
        register("GET", "/v1/contexts/{id}/notes", self.notes)
        register("POST", "/v1/exchanges/{id}/regret", self.regret)

    async def create(self, request: Request) -> web.Response:
        """201 for a new context, 200 for one that was there: with a new version, or as it is."""
        shelf, sleeper = await self._ready()
        body = await self._body(request)
        now = self.clock.now() if self.clock is not None else 0.0
        identity = request["identity"]
        draft = read_draft(body, identity, self._namespace, self._limits, now)
        if draft.model and self.models is not None and draft.model not in self.models:
            message = f"{unknown('model', draft.model, self.models)}."
            raise RequestError(404, message, code="model_not_found", param="model")
        try:
            context, came, _ = await keep(shelf, sleeper, identity.tenant, draft, self._limits)
            await self._refresh()
            await sleeper.came(context, came)
            shown = await self._detail(shelf, context)
        except ContextLimit as exc:
            raise _too_many(exc) from exc
        except StoreError as exc:
            raise _unavailable(exc) from exc
        return _json({**shown, "came": came}, 201 if came == "created" else 200)

    async def many(self, request: Request) -> web.Response:
        shelf, _ = await self._ready()
        tenant: str = request["identity"].tenant
        limit = _limit(request.query.get("limit", "20"))
        source: Any = request.query.get("source")
        if source is not None and source not in SOURCES:
            raise RequestError(400, f"source must be one of {', '.join(SOURCES)}.", param="source")
        before: tuple[float, str] | None = None
        try:
            if ident := request.query.get("before"):
                last = await self._find(shelf, tenant, ident)
                before = (last.created_at, last.id)
            found = await shelf.page(tenant, limit=limit + 1, before=before, source=source)
        except StoreError as exc:
            raise _unavailable(exc) from exc
        shown = found[:limit]
        return _json(
            {
                "object": "list",
                "data": [_summary(context) for context in shown],
                "first_id": shown[0].id if shown else None,
                "last_id": shown[-1].id if shown else None,
                "has_more": len(found) > limit,
            }
        )

    async def one(self, request: Request) -> web.Response:
        shelf, _ = await self._ready()
        try:
            context = await self._find(shelf, request["identity"].tenant, request.match_info["id"])
            return _json(await self._detail(shelf, context))
        except StoreError as exc:
            raise _unavailable(exc) from exc

    async def notes(self, request: Request) -> web.Response:
        """What was written about a context, rejected notes included, and the questions that are expected."""
        shelf, _ = await self._ready()
        try:
            context = await self._find(shelf, request["identity"].tenant, request.match_info["id"])
            notes = await shelf.notes(context.tenant, context.id)
            expected = await shelf.anticipated(context.tenant, context.id)
        except StoreError as exc:
            raise _unavailable(exc) from exc
        shown = {"notes": [_note(one) for one in notes], "anticipated": [_question(one) for one in expected]}
        return _json({"object": "context.notes", "id": context.id, "version": context.version, **shown})

    async def forget(self, request: Request) -> web.Response:
        """Delete a context and all that came of it, in the job store, too."""
        shelf, sleeper = await self._ready()
        tenant: str = request["identity"].tenant
        ident = _named(request.match_info["id"])
        try:
            if not await forget(shelf, sleeper, tenant, ident):
                raise _not_found(ident)
            await self._refresh()
            if self.settled is not None:
                await self.settled()
        except StoreError as exc:
            raise _unavailable(exc) from exc
        return _json({"id": ident, "object": "context.deleted", "deleted": True})

    async def sleep(self, request: Request) -> web.Response:
        """202: the context is slept on as soon as nobody waits, or somebody was quicker and it is being slept on.

        409 where nothing will be done, and why.
        """
        shelf, sleeper = await self._ready()
        options = read_options(await self._body(request))
        tenant: str = request["identity"].tenant
        try:
            context = await self._find(shelf, tenant, request.match_info["id"])
            if context.state in SLEEPABLE:
                why = await sleeper.asked(context, options)
                if why:
                    raise RequestError(409, f"Nothing will be done: {why}", code="sleep_is_off")
                context = await self._find(shelf, tenant, context.id)
            return _json(await self._detail(shelf, context), 202)
        except StoreError as exc:
            raise _unavailable(exc) from exc

    async def regret(self, request: Request) -> web.Response:
        """The client's feedback: the answer of one of its exchanges was wrong. Tells how many uses that spoils."""
        await self._ready()
        assert self.regretted is not None
        ident = request.match_info["id"]
        try:
            uses = await self.regretted(request["identity"].tenant, ident) if "\0" not in ident else 0
        except StoreError as exc:
            raise _unavailable(exc) from exc
        return _json({"id": ident, "object": "exchange.regret", "uses": uses})

    async def _ready(self) -> tuple[Shelf, Sleeper]:
        if self.open_shelf is None or self.sleeper is None:
            raise RequestError(503, "The server is starting.", type="server_error", code="not_ready")
        try:
            return await self.open_shelf(), self.sleeper
        except StoreError as exc:
            raise _unavailable(exc) from exc

    async def _body(self, request: Request) -> bytes:
        from predawn.proxy.service import read_request

        return await read_request(request, (self._limits.max_bytes + ENVELOPE_BYTES) / (1 << 20))

    async def _refresh(self) -> None:
        """Let this server know at once; the others learn of it within a second."""
        if self.index is not None:
            await self.index.refresh()

    async def _find(self, shelf: Shelf, tenant: str, ident: str) -> Context:
        """A context of this tenant; raises `RequestError` 404 for any other."""
        context = await shelf.get(tenant, _named(ident))
        now = self.clock.now() if self.clock is not None else 0.0
        is_over = context is not None and context.expires_at is not None and context.expires_at <= now
        if context is None or context.tenant != tenant or is_over:
            raise _not_found(ident)
        return context

    async def _detail(self, shelf: Shelf, context: Context) -> dict[str, Any]:
        notes = await shelf.notes(context.tenant, context.id)
        decision = await shelf.decision(context.tenant, context.id)
        parts = context.parts
        waits = self.sleeper.waits_for(context.tenant, context.id) if self.sleeper is not None else None
        if waits is None and self.sleeper is not None:
            waits = self.sleeper.waits_elsewhere(context, decision)
        return {
            **_summary(context),
            "messages": sum(not part.live for part in parts),
            "live_messages": sum(part.live for part in parts),
            "base_version": context.base_version,
            "progress": {**asdict(context.progress), "decision": decision, "waits": waits},
            "notes": [{name: value for name, value in _note(one).items() if name != "text"} for one in notes],
        }


def _summary(context: Context) -> dict[str, Any]:
    options = {name: value for name, value in asdict(context.options).items() if value is not None}
    return {
        "object": "context",
        "id": context.id,
        "version": context.version,
        "source": context.source,
        "state": context.state,
        "model": context.model or None,
        "tokens": context.tokens,
        "uses": context.uses,
        "created_at": context.created_at,
        "changed_at": context.changed_at,
        "last_used_at": context.last_used_at,
        "expires_at": context.expires_at,
        "sleep": options,
    }


def _note(notes: Notes) -> dict[str, Any]:
    return {name: value for name, value in asdict(notes).items() if name != "context_id"}


def _question(one: Anticipated) -> dict[str, Any]:
    kept = ("id", "version", "question", "answer", "verified", "model", "made_at", "sleep_tokens")
    return {name: getattr(one, name) for name in kept}


def _limit(text: str) -> int:
    limit = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not 1 <= limit <= MAX_LIMIT:
        raise RequestError(400, f"limit must be a number from 1 to {MAX_LIMIT}.", param="limit")
    return limit


def _named(ident: str) -> str:
    """An id that a context may have; PostgreSQL takes no NUL, not even to look for it. Raises `RequestError` 404."""
    if "\0" in ident:
        raise _not_found(ident)
    return ident


def _too_many(limit: ContextLimit) -> RequestError:
    if limit.unit == "bytes":
        message = f"All contexts together may have {limit.most} bytes (max_tenant_bytes); delete some."
    else:
        message = f"There are {limit.most} contexts already (max_contexts); delete one, or let it expire by ttl_s."
    return RequestError(400, message, code="context_limit")


def _not_found(ident: str) -> RequestError:
    return RequestError(404, f"There is no context {ident[:128]!r}.", code="context_not_found", param="id")


def _unavailable(exc: Exception) -> RequestError:
    log.warning("contexts cannot be read or written: %s", exc)
    return RequestError(503, "The store cannot be used now.", type="server_error", code="store_unavailable")


def _json(data: dict[str, Any], status: int = 200) -> web.Response:
    from aiohttp import web

    return web.Response(status=status, body=msgspec.json.encode(data), content_type="application/json")
