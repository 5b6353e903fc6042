"""Stores to test against: SQLite always, PostgreSQL where PREDAWN_TEST_POSTGRES is the URL of a server."""

import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from predawn.plugins.testing.clock import ManualClock
from predawn.proxy.store import Store, open_store
from predawn.proxy.tasks import Tasks


@pytest.fixture(params=["sqlite", "postgresql"])
async def state(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """A `state` setting that names an empty database."""
    if request.param == "sqlite":
        yield str(tmp_path / "state.db")
        return
    server = os.environ.get("PREDAWN_TEST_POSTGRES")
    if not server:
        pytest.skip("PREDAWN_TEST_POSTGRES is not set")
    import asyncpg

    name = f"predawn_test_{secrets.token_hex(6)}"
    admin = await asyncpg.connect(server.replace("postgresql+asyncpg://", "postgresql://"))
    await admin.execute(f"CREATE DATABASE {name}")
    try:
        head, _, query = server.partition("?")
        yield f"{head.rpartition('/')[0]}/{name}{'?' if query else ''}{query}"
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()


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
