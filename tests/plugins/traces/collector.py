"""Collectors for tests: one in memory, one that speaks HTTP. Both read what they get with OpenTelemetry's own classes."""

from __future__ import annotations

import gzip
from contextlib import asynccontextmanager

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from predawn.plugins.testing import workbench
from predawn.plugins.traces import TracesPlugin, TracesSettings
from predawn.plugins.traces.exporting import Sent

KINDS = {Span.SPAN_KIND_INTERNAL: "internal", Span.SPAN_KIND_SERVER: "server", Span.SPAN_KIND_CLIENT: "client"}


def plain(value):
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    return getattr(value, kind)


def attributes(pairs):
    return {pair.key: plain(pair.value) for pair in pairs}


class Seen:
    """A span as a collector sees it."""

    def __init__(self, span):
        self.message = span
        self.trace, self.id, self.parent = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
        self.name, self.kind = span.name, KINDS[span.kind]
        self.began, self.ended = span.start_time_unix_nano / 1e9, span.end_time_unix_nano / 1e9
        self.attributes = attributes(span.attributes)
        self.links = [(link.trace_id.hex(), link.span_id.hex(), attributes(link.attributes)) for link in span.links]
        self.is_error = span.status.code == Status.STATUS_CODE_ERROR

    @property
    def phase(self):
        return self.attributes.get("predawn.phase", "")


class MemoryCollector:
    """Takes everything, or answers what `answers` says."""

    def __init__(self, *answers):
        self.spans = []
        self.resources = []
        self.bodies = []
        self.answers = list(answers)
        self.is_closed = False

    async def export(self, body):
        self.bodies.append(body)
        answer = self.answers.pop(0) if self.answers else Sent(ok=True)
        if answer.ok:
            self.read(body)
        return answer

    def read(self, body):
        request = ExportTraceServiceRequest()
        request.ParseFromString(body)
        whole = request.SerializeToString()
        request.DiscardUnknownFields()
        assert request.SerializeToString() == whole
        for group in request.resource_spans:
            self.resources.append(attributes(group.resource.attributes))
            for scope in group.scope_spans:
                assert scope.scope.name == "predawn"
                self.spans += [Seen(span) for span in scope.spans]

    async def aclose(self):
        self.is_closed = True

    def named(self, name):
        return [span for span in self.spans if span.name == name]

    def one(self, name):
        (found,) = self.named(name)
        return found

    @property
    def root(self):
        (found,) = [span for span in self.spans if span.kind == "server"]
        return found


@asynccontextmanager
async def traced(*others, collector=None, config=None, upstream=None, **settings):
    """A workbench with `traces` last; what was collected is complete when the block has ended."""
    plugin = TracesPlugin(TracesSettings(**settings))
    plugin.exporter = collector
    async with workbench(*others, plugin, config=config, upstream=upstream) as bench:
        yield bench


@asynccontextmanager
async def http_collector(*statuses, rejected=0):
    """A collector on a free port of this machine: `(url, collector, requests)`."""
    collector, requests, left = MemoryCollector(), [], list(statuses)

    async def take(request):
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body) if not body.startswith(b"\n") else body  # aiohttp may have done it
        requests.append(request)
        status = left.pop(0) if left else 200
        if status != 200:
            return web.Response(status=status, text="secret prompt", headers={"Retry-After": "1"})
        collector.read(body)
        answer = ExportTraceServiceResponse()
        answer.partial_success.rejected_spans = rejected
        return web.Response(body=answer.SerializeToString(), content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    app.router.add_post("/elsewhere", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = site._server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}", collector, requests
    finally:
        await runner.cleanup()
