"""Admission: who asks, for what, and is it in order. What is admitted becomes a `Conversation`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

from aiohttp import web

from predawn.proxy.control import read_control
from predawn.proxy.conversation import Conversation, Tools
from predawn.proxy.exchange import Exchange, RequestError, RouteName
from predawn.proxy.networks import Networks
from predawn.proxy.wire.headers import to_upstream
from predawn.proxy.wire.openai import Head, read_head, refuse_two_models

if TYPE_CHECKING:
    from predawn.proxy.access import Access
    from predawn.proxy.accounting import Account
    from predawn.proxy.http_server import Request
    from predawn.proxy.models import Models
    from predawn.proxy.settings import Settings


BODY_TIMEOUT_S = 120.0
"""Longest time a client may take to send a request's body."""


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint of the API: its name, and its path below `/v1` here and below an upstream's base URL there."""

    name: RouteName
    path: str


CHAT = Route("chat", "/chat/completions")
COMPLETIONS = Route("completions", "/completions")
RESPONSES = Route("responses", "/responses")
EMBEDDINGS = Route("embeddings", "/embeddings")
MESSAGES = Route("messages", "/messages")
ROUTES = (CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS, MESSAGES)


class InProgress(Protocol):
    """A request that is being served, by either lane."""

    @property
    def seen(self) -> tuple[Exchange, Account]:
        """What the live page shows, in brief."""
        ...

    def overdue(self, now: float) -> bool: ...

    def interrupt(self, error: RequestError) -> None: ...


class Service:
    """Serves requests with one version of the settings; a reload puts another `Service` in its place."""

    def __init__(self, settings: Settings, models: Models, access: Access, tools: Tools) -> None:
        self.settings = settings
        self.models = models
        self.access = access
        self.tools = tools
        self.conversations: set[InProgress] = set()
        self.relays = 0
        """Requests to other endpoints in progress, which are only passed on."""
        self.trusted = Networks(settings.server.trusted_proxies)
        self._full_lane = tools.metrics.lane_requests.of("full")
        self.fast_lane = tools.metrics.lane_requests.of("fast")
        """Counts the requests that were answered in the fast lane."""
        self.in_flight = {route.name: tools.metrics.in_flight(route.name) for route in ROUTES}

    @property
    def is_busy(self) -> bool:
        """True while requests are in progress, or answered ones are not booked yet."""
        return bool(self.conversations) or self.relays > 0 or bool(self.tools.late)

    async def serve(
        self,
        request: Request,
        route: Route,
        ident: str,
        *,
        bare: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> web.StreamResponse:
        """Answer a request to one of the completion endpoints. Raises `RequestError` for what is not admitted.

        `bare`: past all plugins, for an operator who compares; observers see it as a probe, to learn nothing from it.
        `headers`: what plugins and upstreams are told in place of the request's own.
        """
        began = perf_counter()
        in_flight = self.in_flight[route.name]
        in_flight.inc()
        self._full_lane.inc()
        conversation: Conversation | None = None
        first = request.take_first_try()
        try:
            conversation = await self._admit(
                request, route, ident, began, request.headers if headers is None else headers, bare=bare
            )
            conversation.seen[0].first_try = first
            self.conversations.add(conversation)
            return await conversation.run()
        except RequestError as exc:
            self.tools.metrics.refused(route.name, exc.status, perf_counter() - began)
            raise
        finally:
            in_flight.dec()
            if first is not None:
                first.drop()  # in case nobody came to take it
            if conversation is not None:
                self.conversations.discard(conversation)

    def interrupt_overdue(self) -> None:
        """End conversations that have taken too long; a sweep each second costs less than a timer for each."""
        now = perf_counter()
        for conversation in tuple(self.conversations):
            if conversation.overdue(now):
                message = "The request took longer than its time limit (timeouts.total_s of the upstream)."
                conversation.interrupt(RequestError(504, message, type="server_error", code="upstream_timeout"))

    async def _admit(
        self, request: Request, route: Route, ident: str, began: float, headers: Mapping[str, str], *, bare: bool
    ) -> Conversation:
        """Raises `RequestError` for what cannot be served."""
        identity = self.access.identify(request.headers, request.remote or "")
        body = await read_request(request, self.settings.server.body_limit_mb)
        try:
            head = read_head(body)
        except RequestError as exc:
            raise _encoded(request) or exc from None
        if identity.key is not None and identity.key.models is not None:
            refuse_two_models(body)
            self.access.check_model(identity, head.model)
        model = self.models.bare(head.model) if bare else self.models.find(head.model)
        self._check_choices(head)
        query = request.rel_url.raw_query_string
        is_trusted = bool(self.trusted) and request.remote in self.trusted
        control: list[tuple[str, str]] = []
        exchange = Exchange(
            body,
            id=ident,
            route=route.name,
            path=f"{route.path}?{query}" if query else route.path,
            tenant=identity.tenant,
            key_id=identity.key_id,
            model=head.model,
            stream=head.stream is True,
            headers=to_upstream(headers, trusted_peer=is_trusted, control=control),
            control=read_control(control, head.predawn),
            arrived_at=self.tools.clock.now(),
            started=began,
        )
        exchange.head = head
        exchange.alias = model.name
        if bare:
            exchange.call_purpose = "probe"
        return Conversation(self.tools, self.access, request, exchange, model, identity)

    def _check_choices(self, head: Head) -> None:
        limit = self.settings.server.max_choices
        if head.n is not None and head.n > limit:
            raise RequestError(400, f"n is {head.n}; at most {limit} choices may be asked for.", param="n")


async def read_request(request: Request, limit_mb: float) -> bytes:
    """The whole body. Raises `RequestError` 413 if it is too large, before reading it where its length says so."""
    limit = int(limit_mb * (1 << 20))
    if (request.content_length or 0) > limit:
        raise _too_large(limit_mb)
    try:
        content = request.content
        if content.is_eof() and content.total_bytes <= limit:
            return content.read_nowait()  # it came with the head, as most do: 3 µs less than reading in a loop
        call_for_body(request)
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await request.read()
    except web.HTTPRequestEntityTooLarge as exc:
        raise _too_large(limit_mb) from exc
    except web.RequestPayloadError as exc:
        raise RequestError(400, f"The request body could not be read: {exc}", code="invalid_http") from exc
    except TimeoutError as exc:
        message = f"The request body did not arrive within {BODY_TIMEOUT_S:g} s."
        raise RequestError(408, message, code="request_timeout") from exc


def call_for_body(request: Request) -> None:
    """Tell a client that waits for it to go on; others send their body unasked."""
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def _encoded(request: Request) -> RequestError | None:
    """What is wrong with a body that cannot be read because it is compressed."""
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.lower() == "identity":
        return None
    message = f"Request bodies are taken as they are, not with Content-Encoding {encoding[:50]!r}."
    return RequestError(415, message, code="unsupported_encoding")


def _too_large(limit_mb: float) -> RequestError:
    return RequestError(413, f"The request body is larger than {limit_mb:g} MiB.", code="request_too_large")
