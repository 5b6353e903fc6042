"""`traces`: each exchange as an OpenTelemetry trace, by phase, sent over OTLP; and a `traceparent` for upstreams.

While somebody waits only the trace's identity is found out (context.py). The spans are made when all is over, from what
was recorded anyway: nothing is done per chunk. What was thought before a request is not inside it; it is linked.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator
from importlib.metadata import version
from time import perf_counter
from typing import TYPE_CHECKING, ClassVar, Final

from predawn.plugins import ChunkFilter, Exchange, Plugin, PluginSettings, hookimpl
from predawn.plugins.traces.content import STATE, Content
from predawn.plugins.traces.context import Context, Parent, Trace, new_trace_id, parent_of
from predawn.plugins.traces.otlp import encoded
from predawn.plugins.traces.places import Place
from predawn.plugins.traces.settings import TracesSettings, destination, resource, sampler
from predawn.plugins.traces.spans import beginning_of, context_name, spans_asleep, spans_of

if TYPE_CHECKING:
    from predawn.plugins.traces.exporting import Exporter, Queue
    from predawn.plugins.traces.otlp import Span
    from predawn.plugins.verify.result import Looked
    from predawn.proxy.lifespan import App

__all__ = ["TracesPlugin", "TracesSettings"]
LOOKED: Final = "verify.looked"
"""Where verification leaves when it looked; its own name for it would load the whole plugin."""
MOST_CONTEXTS: Final = 4096
"""Contexts whose first span is remembered to be sent."""


class TracesPlugin(Plugin[TracesSettings]):
    """Tells a collector of each exchange. Put it last: then `after` is what the other plugins did with it."""

    settings_type: ClassVar[type[PluginSettings]] = TracesSettings

    def __init__(self, settings: TracesSettings) -> None:
        super().__init__(settings)
        self._sampler = sampler(settings)
        self.destination = destination(settings)
        self.exporter: Exporter | None = None
        """Who takes the spans; the collector of the settings, unless somebody else was put here."""
        self._queue: Queue | None = None
        """Takes the spans; absent before and after `lifespan`, and where OpenTelemetry is switched off."""
        self._places: dict[str, Place] = {}
        self._begun: OrderedDict[Context, None] = OrderedDict()
        self._is_off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"

    @property
    def unused_hooks(self) -> frozenset[str]:
        if self._is_off:
            return frozenset({"on_request", "chunk_filter", "on_done"})
        return frozenset() if self.settings.record_content else frozenset({"chunk_filter"})

    @hookimpl
    async def lifespan(self, app: App) -> AsyncIterator[None]:
        from predawn.plugins.traces.exporting import HttpExporter, Queue

        if self._is_off:
            yield
            return
        settings, own = self.settings, version("predawn")
        exporter = self.exporter if self.exporter is not None else HttpExporter(self.destination, app.clock)
        counters = {outcome: app.metrics.trace_spans.of(outcome) for outcome in ("exported", "dropped", "failed")}
        who = resource(own, secrets.token_hex(8))
        queue = Queue(who, own, counters, limit=settings.max_queue, flush_s=settings.flush_s)
        self._places = {upstream.name: Place.of(upstream) for upstream in app.settings.upstreams}
        self._queue = queue
        task = app.tasks.spawn(queue.run(exporter, app.clock), "traces")
        try:
            yield
        finally:
            self._queue = None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await queue.close(exporter, app.clock)
            await exporter.aclose()

    @hookimpl
    async def on_request(self, exchange: Exchange) -> None:
        """Find out whose trace this is; each call to an upstream is then told."""
        if self._queue is not None:  # else OpenTelemetry is switched off, and the client's headers go on as they are
            exchange.trace = self._begin(exchange)

    @hookimpl
    def chunk_filter(self, exchange: Exchange) -> ChunkFilter | None:
        """Collect the reply's texts where content is recorded; otherwise stay out of the bytes' way."""
        trace = exchange.trace
        if not self.settings.record_content or exchange.route in ("raw", "embeddings"):
            return None
        if not isinstance(trace, Trace) or not trace.is_kept:
            return None
        content = exchange.state[STATE] = Content(exchange.route, self.settings.max_content_bytes)
        return content

    @hookimpl
    async def on_done(self, exchange: Exchange) -> None:
        queue = self._queue
        if queue is None:
            return
        spans = list(self._asleep(exchange) if exchange.call_purpose == "sleep" else self._awake(exchange))
        if spans:
            queue.add([encoded(span) for span in spans])

    def _begin(self, exchange: Exchange) -> Trace:
        client = parent_of(exchange.headers)
        if client is not None and self.settings.follow_clients:
            is_kept = bool(client.flags & 1) if self._sampler.obeys else self._sampler.keeps(client.trace)
            return Trace(client.trace, client, None, is_kept=is_kept)
        trace = new_trace_id()
        return Trace(trace, None, _bare(client), is_kept=self._sampler.keeps(trace))

    def _awake(self, exchange: Exchange) -> list[Span]:
        trace = exchange.trace  # none where it was refused before, or only relayed
        if not isinstance(trace, Trace):
            trace = self._begin(exchange)
        if not trace.is_kept:
            return []
        content = exchange.state.get(STATE)
        told = content.attributes(exchange) if isinstance(content, Content) else {}
        ended_s = perf_counter() - exchange.started
        looked: list[Looked] = exchange.state.get(LOOKED, [])
        return list(spans_of(exchange, trace, self._places, ended_s=ended_s, looked=looked, content=told))

    def _asleep(self, exchange: Exchange) -> list[Span]:
        name = context_name(exchange)
        context = Context.of(exchange.tenant, name or exchange.id)
        if not self._sampler.keeps(context.trace):
            return []
        spans = list(spans_asleep(exchange, context, self._places))
        if context not in self._begun:
            spans.append(beginning_of(exchange, name, context))
            self._begun[context] = None
            if len(self._begun) > MOST_CONTEXTS:
                self._begun.popitem(last=False)
        return spans


def _bare(client: Parent | None) -> Parent | None:
    return client._replace(state="") if client is not None else None
