"""Stores to test against: SQLite always, PostgreSQL where PREDAWN_TEST_POSTGRES is the URL of a server."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.proxy.states import empty_state

from predawn.plugins.testing.clock import ManualClock
from predawn.proxy.store import Store, open_store
from predawn.proxy.tasks import Tasks


@pytest.fixture(params=["sqlite", "postgresql"])
async def state(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """A `state` setting that names an empty database."""
    async with empty_state(request.param, tmp_path) as named:
        yield named


@pytest.fixture
async def store(state: str) -> AsyncIterator[Store]:
    store = await open_store(state)
    yield store
    await store.aclose()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    tasks = Tasks()
    yield tasks
    await tasks.cancel()
