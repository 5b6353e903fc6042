"""The page at `/metrics`: what prometheus_client would write, sooner, in slices, and with examples."""

from __future__ import annotations

import threading
import time

import aiohttp
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client import Counter as TheirCounter
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from predawn.plugins.testing import predawn_server
from predawn.proxy.api import ops
from predawn.proxy.exposition import pause, render
from predawn.proxy.meters import LONGEST_EXEMPLAR, Family, Histogram
from predawn.proxy.metrics import Metrics, families
from predawn.proxy.settings import Settings

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
ODD = 'a"b\\c\nd, {e}=é'


def busy_metrics(models=3, requests=40):
    """Metrics in which every histogram of the traffic has been used."""
    metrics = Metrics(CollectorRegistry())
    upstreams = [
        {"name": f"u{number}", "base_url": "http://h/v1", "routes": ["chat", "completions", "responses", "messages"]}
        for number in range(models)
    ]
    served = [{"name": f"m{number}", "upstream": f"u{number}"} for number in range(models)]
    metrics.prepare(Settings.model_validate({"upstreams": upstreams, "models": served}))
    for number in range(models):
        for route in ("chat", "completions", "responses", "messages"):
            for stream in (False, True):
                meters = metrics.traffic(route, f"m{number}", f"u{number}", stream)
                for at in range(requests):
                    meters.observe(
                        code=200,
                        total_s=at * 0.37,
                        overhead_s=at * 1e-4,
                        ttft_s=at * 0.01,
                        mean_gap_s=at * 0.003,
                        max_gap_s=at * 0.02,
                    )
    return metrics


def test_the_page_is_to_the_byte_what_the_client_library_writes():
    metrics = busy_metrics()
    metrics.plugin_info.of(ODD, "0").set(float("inf"))
    metrics.hook(ODD, "on_done").took(1e-9)
    metrics.budget_price.of("m0").set(-1234567.5)
    metrics.tokens.of("m0", "u0", "input", "serve").inc(10**12)
    TheirCounter("others_own", "Told by somebody else.", ["a"], registry=metrics.registry).labels(ODD).inc()

    assert render(metrics)[0] == generate_latest(metrics.registry)
    assert render(metrics, OPENMETRICS)[0] == openmetrics_latest(metrics.registry)


def examples(metrics, name):
    """Of one histogram, by the limit of the bucket: whose it was, how much, and when."""
    text = render(metrics, OPENMETRICS)[0].decode()
    (family,) = [family for family in text_string_to_metric_families(text) if family.name == name]
    return {
        sample.labels["le"]: (sample.exemplar.labels, sample.exemplar.value, float(sample.exemplar.timestamp))
        for sample in family.samples
        if sample.exemplar is not None
    }


def histogram(bounds=(1.0, 2.0)):
    metrics = Metrics(CollectorRegistry())
    return metrics, Family("predawn_test_seconds", "Test.", (), lambda: Histogram(bounds), metrics.registry).of()


def test_a_bucket_tells_the_last_exchange_that_fell_into_it():
    metrics, meter = histogram()
    for value, ident in ((0.5, "a"), (0.7, "b"), (1.5, "c"), (9.0, "d")):
        meter.observe_of(value, ident, 1.5e9 + value)
    meter.observe(0.9)

    assert examples(metrics, "predawn_test_seconds") == {
        "1.0": ({"exchange_id": "b"}, 0.7, 1.5e9 + 0.7),
        "2.0": ({"exchange_id": "c"}, 1.5, 1.5e9 + 1.5),
        "+Inf": ({"exchange_id": "d"}, 9.0, 1.5e9 + 9),
    }
    assert meter.counts == [3, 1, 1]


def test_what_has_no_name_takes_no_example_s_place():
    metrics, meter = histogram()
    meter.observe_of(0.5, "a", 1.5e9)
    meter.observe_of(0.7, "", 1.5e9)

    assert examples(metrics, "predawn_test_seconds") == {"1.0": ({"exchange_id": "a"}, 0.5, 1.5e9)}
    assert meter.counts == [2, 0, 0]


def test_only_openmetrics_has_examples():
    metrics, meter = histogram()
    meter.observe_of(0.5, "req_1", 1.5e9)

    assert b"req_1" not in render(metrics)[0]
    assert b"req_1" in render(metrics, OPENMETRICS)[0]


@pytest.mark.parametrize(("ident", "is_told"), [("", False), ("x" * LONGEST_EXEMPLAR, True), ("x" * 101, False)])
def test_an_id_that_would_break_the_format_is_no_example(ident, is_told):
    metrics, meter = histogram()
    meter.observe_of(0.5, ident, 1.5e9)

    assert bool(examples(metrics, "predawn_test_seconds")) == is_told


async def test_a_served_page_has_examples_and_the_process_in_it():
    settings = {"upstreams": [{"name": "up", "kind": "scripted"}], "models": [{"name": "m", "upstream": "up"}]}
    asked = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
    async with predawn_server(settings) as server, aiohttp.ClientSession() as session:
        url = f"{server.admin_url}/metrics"
        async with session.post(f"{server.base_url}/chat/completions", json=asked) as response:
            ident = response.headers["x-request-id"]
            await response.read()
        async with session.get(url, headers={"Accept": OPENMETRICS}) as response:
            text = await response.text()
        async with session.head(url) as response:
            head = (response.status, await response.read())

    names = {family.name for family in text_string_to_metric_families(text)}
    examples = [line for line in text.splitlines() if f'# {{exchange_id="{ident}"}}' in line]
    assert {"process_resident_memory_bytes", "predawn_requests"} <= names
    assert {line.partition("_bucket")[0] for line in examples} == {
        "predawn_request_duration_seconds",
        "predawn_overhead_seconds",
        "predawn_upstream_duration_seconds",
    }
    assert head == (200, b"")


def test_a_page_is_made_in_slices():
    metrics = busy_metrics()
    rests = []
    whole, _ = render(metrics, rest=lambda: rests.append(1), slice_chars=10_000)

    assert whole == render(metrics)[0]
    assert len(rests) >= len(whole) // 20_000


def longest_slice_s(metrics):
    """How long the loop waits at most for a scrape: CPU time of the thread that renders, from one rest to the next.

    Not seconds by the clock, nor the CPU time between two turns of a loop: where a machine is busy with others, the
    loop's thread may get no processor while slice after slice is made.
    """
    slices, began = [], time.thread_time()

    def rest():
        nonlocal began
        slices.append(time.thread_time() - began)
        pause()
        began = time.thread_time()

    render(metrics, OPENMETRICS, rest)
    return max(*slices, time.thread_time() - began)


def test_a_scrape_of_1000_histograms_holds_the_loop_up_for_5_ms_at_most():
    metrics = busy_metrics(models=40, requests=1)
    count = sum(len(family.children) for family in families(metrics) if family.kind == "histogram")
    longest = [longest_slice_s(metrics) for _ in range(5)]

    assert count >= 1000
    assert min(longest) <= 0.005, longest


async def test_a_served_page_is_made_beside_the_loop_and_rests(monkeypatch):
    rested = []
    monkeypatch.setattr(ops, "pause", lambda: rested.append(threading.get_ident()))
    async with predawn_server({"upstreams": [{"name": "up", "kind": "scripted"}]}) as server:
        async with aiohttp.ClientSession() as session, session.get(f"{server.admin_url}/metrics") as response:
            status = response.status

    assert status == 200
    assert rested
    assert threading.get_ident() not in rested
