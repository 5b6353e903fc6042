"""Every test here runs on the event loop that `predawn serve` uses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import openai
import pytest
import uvloop
from tests.acceptance.house import CLIENT_KEY, House, house

from predawn.proxy import loading

TEST_PLUGINS = ("watch", "shout", "careless", "slow", "draw")


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def _test_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TEST_PLUGINS:
        monkeypatch.setitem(loading.BUILT_IN, name, f"tests.acceptance.plugins:{name.title()}")


@pytest.fixture
async def served() -> AsyncIterator[House]:
    """The server as most tests want it: one provider, one model, no plugin."""
    async with house("hello there") as running:
        yield running


@pytest.fixture
async def client(served: House) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=served.base_url, api_key=CLIENT_KEY, max_retries=0) as opened:
        yield opened
