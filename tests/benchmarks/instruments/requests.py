"""What instruments cost a request, piece by piece: CPU time of this process, which knows no other process's work.

The exchange is the usual one: a stream through one upstream, three plugins that watch. For traces its three phases become
four spans, which are encoded and sent in batches to a collector in a process of its own.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from time import perf_counter, process_time
from typing import Any

from multidict import CIMultiDict
from prometheus_client import CollectorRegistry

from predawn.plugins.testing import ManualClock
from predawn.plugins.traces import TracesPlugin, TracesSettings
from predawn.plugins.traces.exporting import BATCH, HttpExporter, Queue
from predawn.plugins.traces.places import Place
from predawn.proxy.exchange import Call, Exchange
from predawn.proxy.metrics import Metrics
from predawn.proxy.settings import Settings

TIMES, ROUNDS = 4000, 9
SETTINGS: dict[str, Any] = {
    "upstreams": [{"name": "vllm", "base_url": "http://host/v1"}],
    "models": [{"name": "qwen", "upstream": "vllm"}],
    "access": {"tenant_classes": {"gold": ["acme"]}},
}
CLIENT = CIMultiDict(
    {
        "Content-Type": "application/json",
        "User-Agent": "openai-python",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    }
)


def microseconds(piece: Callable[[], object], times: int = TIMES) -> float:
    """Of CPU for one call: the median of several rounds."""
    found = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(ROUNDS):
            began = process_time()
            for _ in range(times):
                piece()
            found.append((process_time() - began) / times * 1e6)
    finally:
        gc.enable()
    return median(found)


def exchange(headers: CIMultiDict[str] = CLIENT) -> Exchange:
    """One that is over."""
    made = Exchange(
        b'{"model":"qwen","stream":true}',
        id="req_0123456789abcdef01234567",
        tenant="acme",
        model="qwen",
        stream=True,
        headers=headers,
        arrived_at=1.7e9,
        started=perf_counter(),
    )
    made.status, made.upstream = 200, "vllm"
    call = Call("vllm", "qwen3", status=200, outcome="ok", started_s=0.001, seconds=0.8, booked=True)
    call.prompt_tokens, call.output_tokens = 120, 80
    ledger = made.ledger
    ledger.calls.append(call)
    ledger.prompt, ledger.output, ledger.total_s, ledger.first_token_s = 120, 80, 0.8, 0.05
    return made


def counted() -> dict[str, float]:
    """Metrics: what `Account` observes at the end of an exchange, and the timing of three plugins' hooks."""
    metrics = Metrics(CollectorRegistry())
    metrics.prepare(Settings.model_validate(SETTINGS))
    one = exchange()
    in_flight = metrics.in_flight("chat")
    hooks = [metrics.hook(name, "on_done") for name in ("record", "sleep", "traces")]

    def traffic() -> None:
        in_flight.inc()
        metrics.traffic("chat", "qwen", "vllm", stream=True).observe(
            code=200,
            total_s=0.8,
            overhead_s=0.0002,
            ttft_s=0.05,
            mean_gap_s=0.01,
            max_gap_s=0.03,
            input_tokens=120,
            output_tokens=80,
            exchange=one.id,
            at=1.7e9,
        )
        metrics.upstream_call("vllm", "qwen", "ok", 0.8, one.id, 1.7e9)
        in_flight.dec()

    def tenants() -> None:
        metrics.during.value += 0.8
        metrics.tenant("acme").observe(200, 0.8, 0.05, 120, 80)

    def timing() -> None:
        for hook in hooks:
            hook.took(perf_counter() - one.started)

    return {
        "traffic, upstream, examples": microseconds(traffic),
        "tenant class and phase": microseconds(tenants),
        "timing of 3 hooks": microseconds(timing),
    }


async def traced() -> dict[str, float]:
    """Traces at a ratio of 1: whose it is, the header for the upstream, the spans, and sending them."""
    metrics = Metrics(CollectorRegistry())
    counters = {outcome: metrics.trace_spans.of(outcome) for outcome in ("exported", "dropped", "failed")}
    queue = Queue({"service.name": "predawn"}, "1", counters, limit=100_000_000, flush_s=60)
    with collector() as url:
        plugin = TracesPlugin(TracesSettings(endpoint=url))
        plugin._queue = queue
        plugin._places = {"vllm": Place.of(Settings.model_validate(SETTINGS).upstreams[0])}
        one, call = exchange(), Call("vllm", "qwen3")

        def on_the_way() -> None:
            finish(plugin.on_request(one))
            assert one.trace is not None
            one.trace.onward(call, one.headers)

        found = {"traceparent, in and out": microseconds(on_the_way)}
        finish(plugin.on_request(one))

        def when_over() -> None:
            finish(plugin.on_done(one))
            if len(queue) > BATCH:
                queue._batch()

        found["spans of one exchange"] = microseconds(when_over)
        while len(queue):
            queue._batch()
        exporter = HttpExporter(plugin.destination, ManualClock())
        found["sending them"] = median([await _sending(plugin, queue, exporter, one, 1024) for _ in range(ROUNDS)])
        await exporter.aclose()
    kept = int(counters["exported"].value)
    assert kept == ROUNDS * 1024 * 4, f"{kept} spans came through"
    return found


async def _sending(plugin: TracesPlugin, queue: Queue, exporter: HttpExporter, one: Exchange, times: int) -> float:
    for _ in range(times):
        finish(plugin.on_done(one))
    began = process_time()
    await queue.flush(exporter, ManualClock())
    return (process_time() - began) / times * 1e6


def finish(coroutine: Any) -> None:
    """Run a hook that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("the hook waits")


@contextmanager
def collector() -> Iterator[str]:
    """A process that takes what it is sent and says so."""
    listening = socket.create_server(("127.0.0.1", 0))
    process = multiprocessing.get_context("fork").Process(target=_collect, args=(listening,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        process.terminate()
        process.join()
        listening.close()


def _collect(listening: socket.socket) -> None:
    while True:
        connection, _ = listening.accept()
        with connection, connection.makefile("rb") as stream:
            while head := stream.readline():
                size = 0
                while (line := stream.readline()) not in (b"\r\n", b""):
                    if line.lower().startswith(b"content-length:"):
                        size = int(line.split(b":")[1])
                if not head.startswith(b"POST"):
                    break
                stream.read(size)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def by_the_sdk() -> float | None:
    """Microseconds for the same four spans with OpenTelemetry's own SDK, made and encoded; None where it is absent."""
    try:
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
    except ImportError:
        return None
    resource = Resource.create({})
    context, parent = SpanContext(1 << 100, 5, False, TraceFlags(1)), SpanContext(1 << 100, 6, False, TraceFlags(1))
    told = {f"gen_ai.attribute.number_{number}": number if number % 2 else "words" for number in range(8)}

    def batch() -> None:
        spans = [
            ReadableSpan(
                "chat qwen3",
                context=context,
                parent=parent,
                resource=resource,
                attributes=told,
                kind=SpanKind.CLIENT,
                start_time=1,
                end_time=2,
            )
            for _ in range(400)
        ]
        encode_spans(spans).SerializeToString()

    return microseconds(batch, times=2) / 100


def measured() -> dict[str, float]:
    """Microseconds by piece."""
    return {**counted(), **asyncio.run(traced())}
