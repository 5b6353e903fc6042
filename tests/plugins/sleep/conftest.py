"""Stores to sleep in: SQLite always, PostgreSQL where PREDAWN_TEST_POSTGRES is the URL of a server."""

from tests.proxy.conftest import clock, state, store, tasks

__all__ = ["clock", "state", "store", "tasks"]
