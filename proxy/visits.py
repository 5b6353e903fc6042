"""Visits to the store: plain functions that do their transactions in one trip, for what is done every second.

Each step on an asynchronous connection to SQLite is a trip to its thread and back: nine for a query in a transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

T = TypeVar("T")
THREADS = 4


class Visit:
    """What a function that is given to `Store.visit` works on: transactions, one after the other."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """As `Store.begin`."""
        with self._connection.begin():
            yield self._connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """As `Store.read`."""
        with self._connection.begin():
            yield self._connection


class _SqliteVisit(Visit):
    """Begins transactions by itself: half of what it costs by way of SQLAlchemy's events."""

    __slots__ = ("_driver",)

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._driver: Any = connection.connection.dbapi_connection

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        self._driver.execute("BEGIN IMMEDIATE")
        with self._connection.begin():
            yield self._connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        self._driver.execute("BEGIN")
        with self._connection.begin():
            yield self._connection

    def close(self) -> None:
        self._connection.close()


class SqliteVisits:
    """Visits to a SQLite file, in threads of their own: look-ups of names that nobody answers may fill the loop's.

    Opens nothing before the first visit. `make_engine` gives one without a pool, which begins no transactions.
    """

    def __init__(self, make_engine: Callable[[], Engine]) -> None:
        self._make_engine = make_engine
        self._engine: Engine | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._idle: list[_SqliteVisit] = []  # kept open: to take one from a pool is a fifth of a visit

    async def run(self, work: Callable[[Visit], T]) -> T:
        """See `Store.visit`."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, "predawn.store")
        job = self._threads.submit(self._do, work)
        try:
            return await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            await _ended(job)  # a thread cannot be cut short, and whoever asked must know what became of it
            raise

    def _do(self, work: Callable[[Visit], T]) -> T:
        try:
            visit = self._idle.pop()
        except IndexError:
            if self._engine is None:
                self._engine = self._make_engine()
            visit = _SqliteVisit(self._engine.connect())
        try:
            result = work(visit)
        except BaseException:
            visit.close()
            raise
        self._idle.append(visit)
        return result

    async def aclose(self) -> None:
        """Wait for the visits under way, then close all connections. Safe to call again."""
        threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.to_thread(self._close, threads)

    def _close(self, threads: ThreadPoolExecutor) -> None:
        threads.shutdown()
        while self._idle:
            self._idle.pop().close()


async def _ended(job: Future[Any]) -> None:
    ended = asyncio.wrap_future(job)
    while not ended.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([ended])
    if not ended.cancelled():  # as it is if the visit had not begun
        ended.exception()  # else asyncio says that nobody asked
