"""Every extension point of Predawn, in call order.

Read this file from top to bottom and you have read the life of a request. `dispatch.py` freezes what plugins implement
into plain tuples; docs/hooks.md has a page for each.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import pluggy

if TYPE_CHECKING:
    from predawn.proxy.exchange import Budget, ChunkFilter, Difficulty, Exchange, Reply
    from predawn.proxy.extensions import RegisterEstimator, RegisterExtractor, RegisterVerifier
    from predawn.proxy.lifespan import App

hookspec = pluggy.HookspecMarker("predawn")
hookimpl = pluggy.HookimplMarker("predawn")

CallNext: TypeAlias = "Callable[[Exchange], Awaitable[Reply]]"
RegisterRoute: TypeAlias = "Callable[[str, str, Callable[[Any], Awaitable[Any]]], None]"


class Spec:
    """The hooks. Request hooks are `async def`; registration and filters are plain `def`."""

    @hookspec
    def register_routes(self, register: RegisterRoute) -> None:
        """Add endpoints of the plugin's own: `register("GET", "/v1/exchanges/{id}", handler)`.

        When: once, at start-up. The handler gets an aiohttp request whose `request["identity"]` is the authenticated
        caller, and returns an aiohttp response. Errors: start-up stops and names the plugin.
        """

    @hookspec
    def register_verifiers(self, register: RegisterVerifier) -> None:
        """Offer verifiers, which judge an answer step by step while it is written: `register(NoPromises())`.

        When: once, at start-up, before `lifespan`. Each has a `name`, a `boundary` and `async def verify(step,
        exchange)`; settings choose them by name. Errors: start-up stops and names the plugin; so it does for a name
        that is taken and for what is no verifier.
        """

    @hookspec
    def register_estimators(self, register: RegisterEstimator) -> None:
        """Offer estimators, which say how hard a request is: `register(ByLength())`.

        When: once, at start-up, before `lifespan`. Each has a `name` and `async def estimate(exchange)`, and may have
        `learn(exchange, evidence)`. Errors: as in `register_verifiers`.
        """

    @hookspec
    def register_extractors(self, register: RegisterExtractor) -> None:
        """Offer extractors, which find what a text answers so that equal answers are equal: `register(Colours())`.

        When: once, at start-up, before `lifespan`. Each has a `name` and `extract(text)`. Errors: as in
        `register_verifiers`; one that raises, or returns what cannot be hashed, says nothing of that text.
        """

    @hookspec
    async def lifespan(self, app: App) -> AsyncIterator[None]:  # type: ignore[empty-body]
        """Open what the plugin needs, `yield` once, close it again; an async generator.

        When: before the first request; what follows the `yield` runs at shutdown, last opened first. Errors: start-up
        stops and names the plugin.
        """

    @hookspec
    async def on_request(self, exchange: Exchange) -> None:
        """Change the request before anything is decided about it, through `exchange.edit()`.

        When: once per request, in the order of the settings, one plugin after another. Errors: the request is refused
        with 502 `plugin_error` naming the plugin (fail closed), unless its settings say `on_error: skip`; a
        `RequestError` reaches the client as it is.
        """

    @hookspec(firstresult=True)
    async def assess(self, exchange: Exchange) -> Difficulty | None:
        """Say how hard the request is, or `None` to leave it to the next plugin.

        When: once per request, after `on_request`. May change nothing. Errors: logged, counted, and the next plugin is
        asked (fail open).
        """

    @hookspec(firstresult=True)
    async def allocate(self, exchange: Exchange) -> Budget | None:
        """Say what the request may cost, given `exchange.difficulty`, or `None` to leave it to the next plugin.

        When: once per request, after `assess`. May change nothing. Errors: as in `assess`.
        """

    @hookspec
    async def around_completion(self, exchange: Exchange, call_next: CallNext) -> Reply:  # type: ignore[empty-body]
        """Stand around the upstream call: await `call_next` never, once, or many times, and return a reply.

        When: once per request; the first plugin of the settings is outermost. A reply returned untouched is relayed as
        bytes. Errors: propagate to the client as 502 `plugin_error`.
        """

    @hookspec
    def chunk_filter(self, exchange: Exchange) -> ChunkFilter | None:
        """Return a plain function that sees each chunk of this answer, or `None` to stay out of the way.

        When: once per answer with a 2xx status; the function is called once per chunk and returns the chunk, another
        one (`chunk.with_data(...)`), several, or `None` to drop it. The chunk with `is_last` is the time to give out
        what was held back. Errors: the stream ends with an error event.
        """

    @hookspec
    async def on_done(self, exchange: Exchange) -> None:
        """See the finished exchange: success, error and disconnect alike.

        When: once per exchange, off the critical path, in the order of the settings; from a bounded queue. May change
        nothing. Errors: logged and counted; after five in a row the plugin's observer is switched off.
        """
