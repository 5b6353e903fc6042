"""What the admin port answers at `/` and below `/live/`."""

from __future__ import annotations

import re
from functools import cached_property
from importlib.metadata import version
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiohttp import web

from predawn.proxy.exchange import RequestError
from predawn.proxy.keyring import Identity
from predawn.proxy.live import gate
from predawn.proxy.live.assets import HEADERS, answer, assets
from predawn.proxy.live.glance import LONGEST_ID, word
from predawn.proxy.live.totals import Totals
from predawn.proxy.live.viewers import Viewers
from predawn.proxy.service import CHAT
from predawn.proxy.wire.headers import request_id

if TYPE_CHECKING:
    from predawn.proxy.conversation import Tools
    from predawn.proxy.generation import Generation
    from predawn.proxy.http_server import Request
    from predawn.proxy.metrics import Metrics

SHOWN: Final = re.compile(r"/live(/v1/(?:exchanges|contexts)/[^/]+)")
"""Endpoints of plugins that the page may read for any tenant: they tell what was done, not what was said."""
OF_A_TRY: Final = ("Content-Type", "User-Agent")
"""What a try tells of its headers to plugins and upstreams: not the admin key, nor what only browsers say.

Some providers take requests with `Origin` for those of a page of theirs, and refuse them.
"""
MOST_MODELS = 200
LONGEST_LIST = 64


class Process(Protocol):
    """The server process whose page it is."""

    generation: Generation
    metrics: Metrics
    refuses: bool

    @property
    def generations(self) -> tuple[Generation, ...]: ...


class LivePage:
    """The live page of one process."""

    def __init__(self, app: Process, *, worker: int = 0) -> None:
        self._app = app
        self._worker = worker
        self._process = token_hex(8)
        """Tells this process from the one before it, which in a container had the same number."""
        self.admin_port = 0
        """The port it is served on, once that is known."""

    @property
    def _tools(self) -> Tools:
        return self._app.generation.service.tools

    @cached_property
    def viewers(self) -> Viewers:
        tools = self._tools
        return Viewers(tools.clock, tools.tasks, self._turn, self._state, self._watched)

    @cached_property
    def _totals(self) -> Totals:
        return Totals(self._app.metrics)

    def serves(self, path: str) -> bool:
        """True for what is answered here."""
        return path in {"/", "/status"} or path.startswith("/live/")

    async def handle(self, request: Request) -> web.StreamResponse:
        """Answer, or raise `RequestError`."""
        path = request.path
        if (asset := assets().get(path)) is not None:
            _only(request, "GET", "HEAD")
            return answer(asset, request.headers.get("If-None-Match"))
        gate.check(request.headers, request.remote or "", self._app.generation.settings.server.admin_key)
        if path == "/live/try":
            _only(request, "POST")
            gate.check_own(request.headers)
            return await self._try(request)
        _only(request, "GET", "HEAD")
        if path == "/status":
            from predawn.proxy.api import front

            return front.page(self._app.generation)
        gate.check_own(request.headers)
        if path == "/live/feed":
            _only(request, "GET")
            return await self.viewers.watch(request)
        if (shown := SHOWN.fullmatch(path)) is not None:
            return await self._shown(request, shown[1])
        raise RequestError(404, f"There is no {path[:200]} here.", code="unknown_url")

    async def _shown(self, request: Request, path: str) -> web.StreamResponse:
        """What a plugin tells of one exchange or context, in the name of `tenant`, or of who has the client key."""
        tenant, access = request.query.get("tenant"), self._app.generation.service.access
        for route in self._app.generation.routes:
            match = route.pattern.fullmatch(path)
            if match is not None and route.method == "GET":
                own = access.identify(request.headers, request.remote or "") if tenant is None else Identity(tenant)
                request.admit(own, match.groupdict())
                response = await route.handler(request)
                response.headers.update({**HEADERS, "Cache-Control": "no-store"})
                return response
        what = "exchanges (record)" if "/exchanges/" in path else "contexts (sleep)"
        raise RequestError(404, f"No plugin keeps {what}: add it to `plugins`.", code="not_kept")

    async def _try(self, request: Request) -> web.StreamResponse:
        """A prompt from the page: an ordinary request, by the key that the page sends; or the same past all plugins."""
        plugins = request.query.get("plugins", "on")
        if plugins not in {"on", "off"}:
            raise RequestError(400, "plugins must be on or off.", param="plugins")
        if self._app.refuses:
            raise RequestError(503, "The server is shutting down.", type="server_error", code="shutting_down")
        told = {name: request.headers[name] for name in OF_A_TRY if name in request.headers}
        service = self._app.generation.service
        return await service.serve(request, CHAT, request_id(None), bare=plugins == "off", headers=told)

    # -- what is sent to all who watch

    def _watched(self, is_watched: bool) -> None:
        feed = self._tools.feed
        if is_watched:
            feed.is_watched = True
        else:
            feed.forget()

    def _turn(self) -> dict[str, Any]:
        sets = (generation.service.conversations for generation in self._app.generations)
        return {"process": self._process, **self._tools.feed.turn(sets)}

    async def _state(self) -> dict[str, Any]:
        generation, tools = self._app.generation, self._tools
        return {
            "version": version("predawn"),
            "worker": self._worker,
            "workers": generation.settings.server.workers,
            "first_port": self.admin_port - self._worker,
            "process": self._process,
            "viewers": len(self.viewers),
            "at": tools.clock.now(),
            **_described(generation),
            "totals": self._totals.read(),
            "boards": await tools.feed.board.read(tools.tasks),
        }


def _described(generation: Generation) -> dict[str, Any]:
    """What the settings in force name."""
    conditions = generation.engines
    return {
        "models": [word(model.name, LONGEST_ID) for model in generation.settings.models[:MOST_MODELS]],
        "plugins": [word(entry.name) for entry in generation.settings.plugins[:LONGEST_LIST]],
        "keys": generation.service.access.has_keys,
        "records": any(route.pattern.fullmatch("/v1/exchanges/any") for route in generation.routes),
        "upstreams": [
            {
                "name": word(name),
                "kind": station.settings.kind,
                "in_flight": station.in_flight,
                "state": word(conditions.get(name, station.breaker.state)),
            }
            for name, station in list(generation.stations.items())[:LONGEST_LIST]
        ],
    }


def _only(request: Request, *methods: str) -> None:
    if request.method not in methods:
        allowed = ", ".join(methods)
        message = f"{request.path[:200]} takes {allowed}."
        raise RequestError(405, message, code="method_not_allowed", headers={"Allow": allowed})
