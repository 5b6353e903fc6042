"""A real model, its real server, and real `predawn serve` processes in front of it. Run by `make test-real`.

Without `-m real` these tests are left out, and the summary says so: they fetch 130 MB once.
"""

import json
import re
import sys
import time
from pathlib import Path

import openai
import pytest

from predawn.proxy.local_server import fetch, serving
from predawn.proxy.small_model.files import cache_folder, small_model
from predawn.proxy.small_model.report import Report
from predawn.proxy.small_model.server import running

HERE = Path(__file__).parent
SLOTS = 2
LEFT_OUT = pytest.StashKey[int]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    if re.search(r"\breal\b", config.option.markexpr):
        return
    mine = [item for item in items if HERE in item.path.parents]
    if mine:
        items[:] = [item for item in items if HERE not in item.path.parents]
        config.hook.pytest_deselected(items=mine)
        config.stash[LEFT_OUT] = len(mine)


def pytest_terminal_summary(terminalreporter, config):
    if count := config.stash.get(LEFT_OUT, 0):
        terminalreporter.write_line(f"{count} tests against a real model were left out: `make test-real` runs them")


@pytest.fixture(scope="session")
def model():
    """llama.cpp's server with SmolLM2-135M-Instruct, embeddings on, and a template that knows tools."""
    weights = small_model(cache_folder(), Report(sys.__stdout__))
    template = HERE / "tools.jinja"
    with running(weights, slots=SLOTS, context=1024, embeddings=True, chat_template=template) as server:
        yield server


def settings(model, **more):
    return {
        "upstreams": [
            {
                "name": "llama",
                "base_url": model.base_url,
                "auth": "none",
                "routes": ["chat", "completions", "responses", "embeddings", "messages"],
                "relay": True,
            }
        ],
        "models": [
            {"name": model.model, "upstream": "llama"},
            {"name": "alias", "upstream": "llama", "model": model.model},
        ],
        **more,
    }


@pytest.fixture(scope="session")
def plain(model, tmp_path_factory):
    """Predawn without plugins."""
    with serving(settings(model), folder=tmp_path_factory.mktemp("plain")) as server:
        yield server


@pytest.fixture(scope="session")
def recorded(model, tmp_path_factory):
    """Predawn with its ledger on."""
    with serving(settings(model, plugins=["record"]), folder=tmp_path_factory.mktemp("recorded")) as server:
        yield server


@pytest.fixture(scope="session")
def client(plain):
    with openai.OpenAI(base_url=plain.base_url, api_key="any", max_retries=0, timeout=60) as made:
        yield made


@pytest.fixture(scope="session")
def accounted(recorded):
    """A client of the server that keeps ledgers."""
    with openai.OpenAI(base_url=recorded.base_url, api_key="any", max_retries=0, timeout=60) as made:
        yield made


class Eventually:
    """Looks again until something is so, or fails."""

    def __call__(self, look, seconds=10.0):
        give_up_at = time.monotonic() + seconds
        while True:
            found = look()
            if found:
                return found
            assert time.monotonic() < give_up_at, f"not so after {seconds} s"
            time.sleep(0.02)


@pytest.fixture(scope="session")
def eventually():
    return Eventually()


@pytest.fixture(scope="session")
def ledger_of(recorded, eventually):
    """Reads the record of an exchange, which is written just after the answer."""

    def read(exchange_id):
        def look():
            try:
                return json.loads(fetch(f"{recorded.base_url}/exchanges/{exchange_id}"))
            except OSError:
                return None

        return eventually(look)

    return read


@pytest.fixture(scope="session")
def busy_slots(model):
    """How many answers the model is writing right now."""

    def count():
        slots = json.loads(fetch(model.base_url.removesuffix("/v1") + "/slots"))
        return sum(slot["is_processing"] for slot in slots)

    return count
