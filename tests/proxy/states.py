"""Empty databases: a SQLite file, or one of PostgreSQL where PREDAWN_TEST_POSTGRES is the URL of a server."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest


@asynccontextmanager
async def empty_state(kind: str, folder: Path) -> AsyncIterator[str]:
    """A `state` setting that names an empty database."""
    if kind == "sqlite":
        yield str(folder / "state.db")
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
