"""Spans on their way out: bounded, tried again where that helps, and read back by OpenTelemetry's own classes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from tests.plugins.traces.collector import MemoryCollector, http_collector

from predawn.plugins.testing import ManualClock, settle, workbench
from predawn.plugins.traces import TracesPlugin, TracesSettings, exporting, otlp
from predawn.plugins.traces.exporting import BATCH, HttpExporter, Queue, Sent
from predawn.plugins.traces.otlp import Link, Span
from predawn.plugins.traces.settings import Sampler, destination, pairs, resource, sampler
from predawn.proxy.metrics import Metrics
from predawn.proxy.tasks import Tasks

TEXTS = st.text(max_size=300).filter(lambda text: text.isprintable())
VALUES = st.one_of(
    TEXTS,
    st.booleans(),
    st.integers(0, 2**63 - 1),
    st.floats(allow_nan=False),
    st.lists(TEXTS, max_size=3).map(tuple),
)


@given(
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    TEXTS,
    st.sampled_from(list(otlp.KINDS)),
    st.dictionaries(st.text("abc._", min_size=1, max_size=5), VALUES, max_size=6),
    st.booleans(),
)
def test_what_is_written_is_what_the_classes_of_opentelemetry_read(trace, span, parent, name, kind, told, is_error):
    made = Span(trace, span, parent, name, kind, 1.5e9, 1.5e9 + 1, told, [Link(trace, span, told)], is_error, "a=b")
    collector = MemoryCollector()

    collector.read(otlp.request({"service.name": "predawn"}, "1", [otlp.encoded(made)] * 2))

    first, second = collector.spans
    assert first.message == second.message
    assert (first.trace, first.id) == (f"{trace:032x}", f"{span:016x}")
    assert first.parent == (f"{parent:016x}" if parent else "")
    assert (first.name, first.kind, first.is_error) == (name, kind, is_error)
    assert (first.began, first.ended) == (1.5e9, 1.5e9 + 1)
    assert first.attributes == {key: list(value) if isinstance(value, tuple) else value for key, value in told.items()}
    assert first.links == [(first.trace, first.id, first.attributes)]
    assert first.message.trace_state == "a=b"
    assert first.message.flags & 1


@given(st.binary(max_size=60))
def test_no_answer_of_a_collector_is_too_odd_to_be_read(answer):
    assert isinstance(otlp.rejected(answer), int)


def test_half_characters_are_sent_as_something():
    made = Span(1, 1, 0, "\ud800", "client", 1, 2, {"a": "\udfff"})
    collector = MemoryCollector()
    collector.read(otlp.request({}, "1", [otlp.encoded(made)]))

    assert collector.spans[0].attributes == {"a": "?"}


class Books:
    """A queue with its counters."""

    def __init__(self, limit=BATCH, flush_s=0.01):
        self.metrics = Metrics(CollectorRegistry())
        counters = {name: self.metrics.trace_spans.of(name) for name in ("exported", "dropped", "failed")}
        self.queue = Queue({}, "1", counters, limit=limit, flush_s=flush_s)
        self.counters = counters

    @property
    def counts(self):
        return tuple(int(self.counters[name].value) for name in ("exported", "dropped", "failed"))


SPAN = otlp.encoded(Span(1, 1, 0, "a", "client", 1, 2, {}))


async def test_what_does_not_fit_is_dropped_and_counted():
    books = Books(limit=10)
    for _ in range(5):
        books.queue.add([SPAN] * 3)
    collector = MemoryCollector()
    await books.queue.close(collector, ManualClock())

    assert len(collector.spans) == 9
    assert books.counts == (9, 6, 0)


async def test_batches_have_a_size():
    books = Books(limit=3 * BATCH)
    books.queue.add([SPAN] * (2 * BATCH + 1))
    collector = MemoryCollector()
    await books.queue.close(collector, ManualClock())

    assert len(collector.bodies) == 3
    assert books.counts == (2 * BATCH + 1, 0, 0)


async def test_long_spans_go_out_in_short_requests(monkeypatch):
    monkeypatch.setattr(exporting, "BATCH_BYTES", 4 * len(SPAN))
    books = Books()
    books.queue.add([SPAN] * 9)
    books.queue.add([otlp.encoded(Span(1, 1, 0, "a" * 1000, "client", 1, 2, {}))])
    collector = MemoryCollector()
    await books.queue.close(collector, ManualClock())

    assert [len(body) < 1000 for body in collector.bodies] == [True, True, True, False]
    assert books.counts == (10, 0, 0)


async def test_what_waits_has_a_size_too(monkeypatch):
    monkeypatch.setattr(exporting, "MOST_BYTES", 5 * len(SPAN))
    books = Books()
    for _ in range(3):
        books.queue.add([SPAN] * 2)
    collector = MemoryCollector()
    await books.queue.flush(collector, ManualClock())
    books.queue.add([SPAN] * 5)
    await books.queue.close(collector, ManualClock())

    assert books.counts == (9, 2, 0)


@pytest.mark.parametrize("status", [202, 204])
async def test_any_success_of_a_collector_is_one(status):
    async with http_collector(status) as (url, _, _), exporter_to(url) as exporter:
        sent = await exporter.export(otlp.request({}, "1", [SPAN]))

    assert sent == Sent(ok=True)


async def flushed(books, *answers):
    """Flush with a clock that goes on by itself; the collector."""
    collector, clock = MemoryCollector(*answers), ManualClock()
    flushing = Tasks().spawn(books.queue.flush(collector, clock), "flush")
    while not flushing.done():
        await settle()
        await clock.jump()
    await flushing
    return collector


async def test_what_may_work_later_is_tried_again():
    books = Books()
    books.queue.add([SPAN])
    collector = await flushed(books, Sent(ok=False, again=True), Sent(ok=False, again=True, retry_after_s=3))

    assert len(collector.bodies) == 3
    assert books.counts == (1, 0, 0)


@pytest.mark.parametrize(("again", "tries"), [(False, 1), (True, 5)])
async def test_what_does_not_work_is_given_up_and_counted(again, tries, caplog):
    books = Books()
    books.queue.add([SPAN] * 2)
    collector = await flushed(books, *[Sent(ok=False, again=again, why="it is closed")] * 5)

    assert len(collector.bodies) == tries
    assert books.counts == (0, 0, 2)
    assert "it is closed" in caplog.text
    assert len(books.queue) == 0


async def test_a_collector_tells_what_it_did_not_take():
    async with http_collector(rejected=2) as (url, _, _), exporter_to(url) as exporter:
        books = Books()
        books.queue.add([SPAN] * 3)
        await books.queue.close(exporter, ManualClock())

    assert books.counts == (1, 0, 2)


class exporter_to:
    """An exporter to a URL, closed in the end."""

    def __init__(self, url, **settings):
        self.exporter = HttpExporter(destination(TracesSettings(endpoint=url, **settings), {}), ManualClock())

    async def __aenter__(self):
        return self.exporter

    async def __aexit__(self, *_):
        await self.exporter.aclose()


@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_a_server_sends_over_http(compression, tmp_path):
    async with http_collector() as (url, collector, requests):
        plugin = TracesPlugin(TracesSettings(endpoint=url, compression=compression, headers={"x-key": "sesame"}))
        async with workbench(plugin) as bench:
            await bench.run()

    assert collector.root.name == "POST /v1/chat/completions"
    assert collector.resources[0]["service.name"] == "predawn"
    assert {request.headers["x-key"] for request in requests} == {"sesame"}
    assert {request.headers["Content-Type"] for request in requests} == {"application/x-protobuf"}
    assert {request.headers.get("Content-Encoding", "none") for request in requests} == {compression}


@pytest.mark.parametrize(("status", "again"), [(400, False), (401, False), (404, False), (429, True), (503, True)])
async def test_what_a_collector_answers_decides_whether_it_is_asked_again(status, again, caplog):
    async with http_collector(status) as (url, _, _), exporter_to(url) as exporter:
        sent = await exporter.export(otlp.request({}, "1", [SPAN]))

    assert (sent.ok, sent.again, sent.retry_after_s) == (False, again, 1)
    assert "secret prompt" not in sent.why


async def test_a_collector_that_is_not_there_may_come_back():
    async with exporter_to("http://127.0.0.1:9") as exporter:
        sent = await exporter.export(b"")

    assert (sent.ok, sent.again) == (False, True)


async def test_a_dead_collector_holds_up_neither_answers_nor_the_end(monkeypatch):
    monkeypatch.setattr(exporting, "CLOSE_S", 0.05)
    collector = MemoryCollector(*[Sent(ok=False, again=True)] * 1000)
    plugin = TracesPlugin(TracesSettings(max_queue=8))
    plugin.exporter = collector
    async with workbench(plugin) as bench:
        for _ in range(20):
            assert (await bench.run()).status == 200

    assert collector.is_closed


async def test_opentelemetry_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    collector = MemoryCollector()
    plugin = TracesPlugin(TracesSettings())
    plugin.exporter = collector
    told = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    async with workbench(plugin) as bench:
        assert (await bench.run(headers=told)).status == 200

    assert collector.bodies == []
    assert bench.upstream.requests[0].headers["traceparent"] == told["traceparent"]


NONE = TracesSettings()


@pytest.mark.parametrize(
    ("settings", "env", "url"),
    [
        (NONE, {}, "http://localhost:4318/v1/traces"),
        (TracesSettings(endpoint="http://c:1"), {}, "http://c:1/v1/traces"),
        (TracesSettings(endpoint="http://c:1/"), {}, "http://c:1/v1/traces"),
        (TracesSettings(endpoint="http://c/own"), {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://d"}, "http://c/own"),
        (NONE, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://d:2/base"}, "http://d:2/base/v1/traces"),
        (NONE, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://d:2/own"}, "http://d:2/own"),
    ],
)
def test_where_spans_go_is_said_by_settings_then_by_the_environment(settings, env, url):
    assert destination(settings, env).url == url


def test_other_variables_of_opentelemetry_are_read():
    env = {
        "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Basic%20abc,bad,x=1",
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "gzip",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2500",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": "/ca.pem",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }
    found = destination(NONE, env)

    assert found.headers == {"Authorization": "Basic abc", "x": "1"}
    assert (found.compresses, found.timeout_s, found.certificate) == (True, 2.5, "/ca.pem")


@pytest.mark.parametrize(
    "env",
    [
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        {"OTEL_EXPORTER_OTLP_COMPRESSION": "zstd"},
        {"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"},
        {"OTEL_EXPORTER_OTLP_HEADERS": "a=b%0d%0ac"},
    ],
)
def test_variables_that_cannot_be_used_are_errors(env):
    with pytest.raises(ValueError):
        destination(NONE, env)


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, Sampler(1.0, True)),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, Sampler(0.0, False)),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_on"}, Sampler(1.0, True)),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"}, Sampler(0.25, False)),
        ({"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"}, Sampler(0.5, True)),
    ],
)
def test_samplers_are_those_of_opentelemetry(env, expected):
    assert sampler(NONE, env) == expected


def test_an_unknown_sampler_is_an_error():
    with pytest.raises(ValueError, match="OTEL_TRACES_SAMPLER"):
        sampler(NONE, {"OTEL_TRACES_SAMPLER": "jaeger_remote"})


def test_settings_are_before_the_environment():
    assert sampler(TracesSettings(ratio=0.1), {"OTEL_TRACES_SAMPLER": "always_off"}) == Sampler(0.1, True)


@given(st.integers(1, 2**128 - 1), st.floats(0, 1))
def test_the_decision_is_that_of_opentelemetry(trace, ratio):
    assert Sampler(ratio).keeps(trace) == ((trace & (2**64 - 1)) < round(ratio * 2**64))
    assert Sampler(1.0).keeps(trace)
    assert not Sampler(0.0).keeps(trace)


def test_who_sends_is_said_by_the_environment():
    env = {"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=prod,service.name=x", "OTEL_SERVICE_NAME": "gateway"}

    assert resource("1", "i", env) == {
        "service.name": "gateway",
        "service.version": "1",
        "service.instance.id": "i",
        "deployment.environment": "prod",
    }
    assert pairs("") == {}


def test_nothing_secret_is_shown():
    settings = TracesSettings(endpoint="http://u:hunter2@c/x", headers={"k": "sesame"})

    assert "sesame" not in repr(settings)
    assert "hunter2" not in repr(destination(settings, {}))
