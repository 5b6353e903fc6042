"""Predawn with everything on, its providers, and a real Prometheus that scrapes it every second."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grafana.asking import AskingError, Prometheus, Span
from grafana.build import HERE as GRAFANA

from predawn.plugins.testing import scripted_server
from predawn.proxy.keys import Digester, Key, create_key
from predawn.proxy.loading import BUILT_IN
from predawn.proxy.local_server import LocalServer, serving
from predawn.proxy.secret import find_or_make_secret
from predawn.proxy.settings import Settings
from predawn.proxy.store import open_store
from predawn.proxy.upstreams.scripted import Answer, Received, Script

HERE = Path(__file__).parent
SCRAPE_S = 1
START_S = 30
MISSING = "this needs `prometheus` on the PATH (Debian: apt-get install prometheus)"
ALL_ROUTES = ["chat", "completions", "responses", "embeddings", "messages"]


@dataclass(frozen=True, slots=True)
class Stand:
    """What runs."""

    predawn: LocalServer
    prometheus: Prometheus
    keys: Mapping[str, str]
    """A client's key for each of the tenants `acme` (gold), `solo` and `limited`."""
    settings_file: Path
    began: float

    def span(self, seconds: float | None = None) -> Span:
        """All since the start, or the last so many seconds."""
        now = time.time()
        return Span(now - seconds if seconds else self.began, now, SCRAPE_S)


def thinks(received: Received) -> Answer:
    """The good provider: quick on easy questions, slow on hard ones, wrong now and then, and it writes notes."""
    draw = random.Random(f"{time.monotonic()}")
    pace: dict[str, Any] = {
        "first_byte_ms": draw.lognormvariate(4.4, 0.5),
        "interval_ms": draw.lognormvariate(1.6, 0.5),
    }
    asked = str(received.json)
    if draw.random() < 0.01:
        pace["first_byte_ms"] = 3000
    if draw.random() < 0.3:
        pace["usage"] = {"prompt_tokens_details": {"cached_tokens": 16}}
    if "Write better notes" in asked:
        return Answer(text="<notes>\n- 12 * 3 = 36 dollars are earned a day by the shop\n</notes>", **pace)
    if "Judge every claim" in asked or "Hold each part" in asked:
        return Answer(text="1: right\n2: right\n3: right\n4: right", **pace)
    if "likely to be asked" in asked:
        return Answer(text="Q: How much does the shop earn a day?", **pace)
    if "shop" in asked:
        noted = "Notes written earlier" in asked
        return Answer(text="It earns 36 dollars a day. " * (2 if noted else 6), **pace)
    if "Prove" in asked:
        effort = {"none": 0, "low": 20, "medium": 40, "high": 80}.get(received.json.get("reasoning_effort", "low"), 40)
        answer = draw.choice((41, 42, 42, 42))
        return Answer(text=f"Add them. 20 + 22 = {answer}. The answer is {answer}.", reasoning="well " * effort, **pace)
    wrong = draw.random() < 0.2
    return Answer(text=f"Bob is small. 3 + 4 = {8 if wrong else 7}. He has 7 apples, and all is said.", **pace)


def settings(good: str, shaky: str, cut: str, slow: str) -> dict[str, Any]:
    """Everything on: five kinds of providers, one of them not there, and every plugin."""
    quick = {"timeouts": {"connect_s": 1, "first_byte_s": 0.7, "idle_s": 0.7}, "breaker": {"failures": 1000}}
    common = {"api_key": "sk-upstream", "routes": ALL_ROUTES}
    verifiers = ["arithmetic", {"regex": {"must_not": ["secret"]}}, "tool_call", "fickle"]
    judge = {"judge": {"model": "m"}}
    plugins: list[Any] = [
        {
            "sleep": {
                "idle_s": 0.3,
                "policy": "always",
                "model": "night",
                "questions": 2,
                "min_tokens": 64,
                "quiet_s": 20,
                "max_contexts": 6,
            }
        },
        {"cache": {}},
        "careless",
        {
            "budget": {
                "policy": "marginal",
                "target_tokens": 600,
                "probe": "always",
                "probe_capabilities": True,
                "ceilings": {"request_tokens": 40_000},
                "learning": {"flat_after": 20, "flush_s": 0.5},
            }
        },
        {"sampling": {}},
        {"verify": {"mode": "intervene", "verifiers": [*verifiers, judge]}},
        {"record": {"flush_s": 0.5}},
        "redact",
    ]
    if "traces" in BUILT_IN:
        plugins.append({"traces": {"endpoint": "http://127.0.0.1:9/v1/traces"}})
    return {
        "upstreams": [
            {"name": "provider", "base_url": good, "relay": True, **common},
            {"name": "shaky", "base_url": shaky, "retries": {"attempts": 2, "base_s": 0.05}, **common},
            {"name": "cuts", "base_url": cut, **common, **quick},
            {"name": "slow", "base_url": slow, "retries": {"attempts": 1}, **common, **quick},
            {
                "name": "gone",
                "base_url": "http://127.0.0.1:9/v1",
                "retries": {"attempts": 1},
                "breaker": {"failures": 3, "cool_s": 4},
                **common,
            },
            {"name": "night", "base_url": good, **common},
            {"name": "local", "kind": "local", "engine": {"threads": 1, "lookup": True}},
        ],
        "models": [
            {"name": "m", "upstream": "provider", "reasoning": "reasoning_effort", "prefill": True},
            {"name": "shaky", "upstream": "shaky", "fallbacks": ["m"]},
            {"name": "cuts", "upstream": "cuts"},
            {"name": "slow", "upstream": "slow"},
            {"name": "gone", "upstream": "gone"},
            {"name": "night", "upstream": "night"},
            {"name": "tiny", "upstream": "local", "reasoning": "reasoning_effort"},
        ],
        "plugins": plugins,
        "access": {"keys": "required", "tenant_classes": {"gold": ["acme"]}},
        "server": {"log": {"format": "text"}},
    }


@asynccontextmanager
async def stand(folder: Path) -> AsyncIterator[Stand]:
    """Start all of it on free ports of this machine; everything is stopped at the end."""
    async with AsyncExitStack() as stack:
        good = await stack.enter_async_context(scripted_server(choose=thinks))
        shaky = await stack.enter_async_context(
            scripted_server(
                Script(chunks=30, interval_ms=4, error_rate=0.4, errors=("status=500", "status=429", "refuse"))
            )
        )
        cut = await stack.enter_async_context(
            scripted_server(Script(chunks=30, interval_ms=4, error_rate=0.5, errors=("die_mid_event", "garbage")))
        )
        slow = await stack.enter_async_context(
            scripted_server(Script(chunks=20, error_rate=0.6, errors=("stall_headers", "stall_mid_stream")))
        )
        told = settings(good.base_url, shaky.base_url, cut.base_url, slow.base_url)
        told["state"] = str(folder / "state.db")
        keys = await _keys(told)
        careless = f"{HERE / 'careless_plugin'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        began = time.time()
        predawn = await _entered(stack, serving(told, folder=folder, env={"PYTHONPATH": careless}))
        url = await _entered(stack, prometheus(folder, predawn.admin_url))
        asked = Prometheus(url)
        await asyncio.to_thread(scraped, asked)
        yield Stand(predawn, asked, keys, folder / "predawn.yaml", began)


async def _entered(stack: AsyncExitStack, manager: Any) -> Any:
    """Enter a blocking context in a thread: the providers answer meanwhile."""
    entered = await asyncio.to_thread(manager.__enter__)
    stack.push_async_callback(asyncio.to_thread, manager.__exit__, None, None, None)
    return entered


def scraped(asked: Prometheus, times: int = 5) -> None:
    """Wait until Prometheus has seen Predawn so often; the first time comes after five seconds."""
    give_up_at = time.monotonic() + START_S
    query = "max(count_over_time(predawn_build_info[1m]))"
    while not any(one.last and one.last >= times for one in asked.at(query, Span(0, time.time()))):
        assert time.monotonic() < give_up_at, "Prometheus never scraped it"
        time.sleep(0.2)


async def _keys(told: Mapping[str, Any]) -> dict[str, str]:
    read = Settings.model_validate(told)
    store = await open_store(read.state)
    try:
        digester = Digester(find_or_make_secret(read))
        drafts = {
            "acme": Key(id="", name="acme", tenant="acme"),
            "solo": Key(id="", name="solo", tenant="solo"),
            "limited": Key(id="", name="limited", tenant="solo", requests_per_minute=5),
        }
        return {name: (await create_key(store, digester, draft))[1] for name, draft in drafts.items()}
    finally:
        await store.aclose()


@contextmanager
def prometheus(folder: Path, admin_url: str) -> Iterator[str]:
    """A Prometheus on a free port, with our rules; gives its address once it answers."""
    from tests.acceptance.process import free_port

    found = shutil.which("prometheus")
    assert found, MISSING
    config = folder / "prometheus.yml"
    rules = GRAFANA / "prometheus" / "predawn.rules.yml"
    config.write_text(
        f"global: {{scrape_interval: {SCRAPE_S}s, evaluation_interval: 5s}}\nrule_files: [{rules}]\nscrape_configs:\n"
        f"  - {{job_name: predawn, static_configs: [{{targets: ['{admin_url.removeprefix('http://')}']}}]}}\n"
    )
    port = free_port()
    options = {
        "config.file": config,
        "storage.tsdb.path": folder / "tsdb",
        "web.listen-address": f"127.0.0.1:{port}",
        "enable-feature": "exemplar-storage",
        "log.level": "warn",
    }
    command = [found, *(f"--{name}={value}" for name, value in options.items())]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        asked = Prometheus(f"http://127.0.0.1:{port}", timeout_s=5)
        give_up_at = time.monotonic() + START_S
        while True:
            try:
                asked.get("query", {"query": "1"})
                break
            except AskingError as exc:
                said = (folder / "prometheus.log").read_text()
                assert process.poll() is None and time.monotonic() < give_up_at, f"{exc}\n{said}"
                time.sleep(0.1)
        yield asked.url
    finally:
        process.terminate()
        process.wait(10)
