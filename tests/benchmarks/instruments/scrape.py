"""How long a scrape holds the event loop up: a loop that does nothing but take turns, and a page rendered beside it.

What counts is the CPU time of this process between two turns: whatever it works on then is not the loop. Other processes
of the machine are not in it, as they would be in seconds by the clock, which stand beside it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest

from predawn.proxy.exposition import pause, render
from predawn.proxy.metrics import Metrics, families
from predawn.proxy.settings import Settings

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
ROUTES = ("chat", "completions", "responses", "messages")
CHILDREN, SCRAPES = 300, 30


def filled(children: int = CHILDREN) -> Metrics:
    """Metrics with at least so many histograms, all in use and with an example in most buckets."""
    models = 1
    while True:
        metrics = Metrics(CollectorRegistry())
        upstreams = [
            {"name": f"upstream-{number}", "base_url": "http://h/v1", "routes": list(ROUTES)}
            for number in range(models)
        ]
        served = [{"name": f"model-{number}", "upstream": f"upstream-{number}"} for number in range(models)]
        metrics.prepare(Settings.model_validate({"upstreams": upstreams, "models": served}))
        if histograms(metrics) >= children:
            break
        models += 1
    for number in range(models):
        for route in ROUTES:
            for stream in (False, True):
                meters: Any = metrics.traffic(route, f"model-{number}", f"upstream-{number}", stream)  # type: ignore[arg-type]
                for step in range(18):
                    meters.observe(
                        code=200,
                        total_s=0.008 * 2**step,
                        overhead_s=1e-4 * 2**step,
                        ttft_s=0.004 * 2**step,
                        mean_gap_s=5e-4 * 2**step,
                        max_gap_s=1e-3 * 2**step,
                        exchange=f"req_{step:024x}",
                        at=1.7e9 + step,
                    )
    return metrics


def histograms(metrics: Metrics) -> int:
    return sum(len(family.children) for family in families(metrics) if family.kind == "histogram")


def series(page: bytes) -> int:
    return sum(not line.startswith(b"#") for line in page.splitlines())


async def _blocked_ms(work: Callable[[], object]) -> tuple[float, float]:
    """The longest time between two turns of the loop: of this process's CPU, and by the clock."""
    working = asyncio.get_running_loop().run_in_executor(None, work)
    cpu = clock = 0.0
    cpu_before, clock_before = time.process_time(), time.perf_counter()
    while not working.done():
        await asyncio.sleep(0)
        cpu_now, clock_now = time.process_time(), time.perf_counter()
        cpu, clock = max(cpu, cpu_now - cpu_before), max(clock, clock_now - clock_before)
        cpu_before, clock_before = cpu_now, clock_now
    return cpu * 1000, clock * 1000


async def _case(work: Callable[[], object], scrapes: int) -> dict[str, float]:
    await _blocked_ms(work)
    began = time.process_time()
    work()
    cost_ms = (time.process_time() - began) * 1000
    blocks = [await _blocked_ms(work) for _ in range(scrapes)]
    cpu, clock = [block[0] for block in blocks], [block[1] for block in blocks]
    return {
        "cpu_ms": cost_ms,
        "worst_block_ms": max(cpu),
        "median_block_ms": median(cpu),
        "worst_block_by_clock_ms": max(clock),
        "median_block_by_clock_ms": median(clock),
    }


async def _all(scrapes: int) -> dict[str, Any]:
    metrics = filled()
    page = render(metrics, OPENMETRICS)[0]
    ways: dict[str, Callable[[], object]] = {
        "in slices": lambda: render(metrics, OPENMETRICS, pause),
        "in one go": lambda: render(metrics, OPENMETRICS),
        "prometheus_client": lambda: generate_latest(metrics.registry),
    }
    found: dict[str, Any] = {name: await _case(work, scrapes) for name, work in ways.items()}
    return {"histograms": histograms(metrics), "series": series(page), "bytes": len(page), "ways": found}


def measured(scrapes: int = SCRAPES) -> dict[str, Any]:
    """Each way of rendering, beside the same loop."""
    return asyncio.run(_all(scrapes))
