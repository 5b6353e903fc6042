"""Durable state: a SQLite file, or a PostgreSQL database that several servers share.

`open_store` brings the schema up to date, so that whoever has a `Store` has its tables (`tables.py`). SQLAlchemy is
imported when a store is opened, alembic only when its schema is behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from predawn.proxy.migrations import HEAD, LOCK_ID
from predawn.proxy.store_errors import StoreError, explained
from predawn.proxy.visits import SqliteVisits, Visit

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine
    from sqlalchemy.dialects.postgresql import Insert as PostgresInsert
    from sqlalchemy.dialects.sqlite import Insert as SqliteInsert
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
    from sqlalchemy.schema import Table

__all__ = ["Store", "StoreError", "Visit", "insert_into", "open_store", "sqlite_path"]

T = TypeVar("T")

BUSY_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 10.0


class Store:
    """An open database. Connections come from a small pool; a transaction is the only way to one."""

    def __init__(self, engine: AsyncEngine, *, path: Path | None = None, visits: SqliteVisits | None = None) -> None:
        self._engine = engine
        self._reading = engine.execution_options(reading=True)
        self.path = path
        """The SQLite file, or `None` for a server."""
        self._visits = visits

    @property
    def url(self) -> str:
        """Where the state is, without its password."""
        return _shown(self._engine.url)

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """A connection in a transaction that may write: committed at the end, rolled back when the block raises.

        Do nothing but SQL in the block: SQLite has one writer at a time. Raises `StoreError` when the database cannot
        be reached, stays locked, is full or damaged, or lacks a table; an `IntegrityError` or `DataError` stays one.
        """
        with explained(self._place):
            async with self._engine.begin() as connection:
                yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """As `begin`, for reading only: on SQLite it neither waits for a writer nor holds one up."""
        with explained(self._place):
            async with self._reading.begin() as connection:
                yield connection

    async def visit(self, work: Callable[[Visit], T]) -> T:
        """Run `work`, which does nothing but SQL, in one trip to the database; on SQLite in a thread.

        Its transactions are those of `begin` and `read`, and so are its errors. Whoever is cancelled meanwhile hears it
        once `work` has ended: what it noted down as committed is. A server's connection is cut instead.
        """
        with explained(self._place):
            if self._visits is not None:
                return await self._visits.run(work)
            async with self._engine.connect() as connection:
                return await connection.run_sync(lambda plain: work(Visit(plain)))

    def insert(self, table: Table) -> SqliteInsert | PostgresInsert:
        """`INSERT` in this database's dialect, for `on_conflict_do_update` and `on_conflict_do_nothing`."""
        return insert_into(table, self.dialect)

    async def aclose(self) -> None:
        """Close all connections. Safe to call again."""
        try:
            if self._visits is not None:
                await self._visits.aclose()
        finally:
            await self._engine.dispose()

    @property
    def _place(self) -> str:
        return str(self.path) if self.path else self.url

    def __repr__(self) -> str:
        return f"<Store {self._place}>"


def insert_into(table: Table, dialect: str) -> SqliteInsert | PostgresInsert:
    """As `Store.insert`, for statements that are made before there is a store."""
    if dialect == "sqlite":
        from sqlalchemy.dialects import sqlite

        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql

    return postgresql.insert(table)


def sqlite_path(state: str) -> Path | None:
    """The file that `state` names, or `None` where it is the URL of a server. Imports nothing."""
    if "://" not in state:
        return Path(state).expanduser()
    parts = urlsplit(state)
    if parts.scheme in {"sqlite", "sqlite+aiosqlite"}:
        # SQLAlchemy's convention: three slashes begin a relative path, four an absolute one.
        return Path(parts.path[1:] or ":memory:")
    return None


async def open_store(state: str) -> Store:
    """Open the SQLite file or the PostgreSQL URL and bring its schema up to date.

    Safe when several processes start at once. Raises `StoreError`.
    """
    path = sqlite_path(state)
    await asyncio.to_thread(import_module, "sqlalchemy.ext.asyncio")  # 0.2 s in which requests go on
    store = await _open_sqlite(path) if path else _open_postgresql(state)
    try:
        async with store.read() as connection:
            is_current = await connection.run_sync(_is_current)
        if not is_current:
            await asyncio.to_thread(import_module, "alembic.command")
            async with store.begin() as connection:
                await connection.run_sync(_migrate)
    except BaseException as exc:
        await store.aclose()
        if path is None and isinstance(exc, TypeError):
            raise StoreError(f"state {store.url}: the driver does not know an option of this URL ({exc})") from exc
        raise
    return store


def _json(value: object) -> str:
    """JSON for the store's JSON columns: 5 µs less per exchange than the standard library's."""
    return msgspec.json.encode(value).decode()


async def _open_sqlite(path: Path) -> Store:
    from sqlalchemy import URL, NullPool, create_engine
    from sqlalchemy.ext.asyncio import create_async_engine

    from predawn.proxy import sqlite_file

    if path.name == ":memory:":
        raise StoreError("state: ':memory:' would be forgotten at the end; name a file")
    with explained(str(path)):
        await asyncio.to_thread(sqlite_file.prepare, path, CONNECT_TIMEOUT_S)
    options: dict[str, Any] = {
        # The driver would begin transactions at the first write, which lets two of them deadlock half way.
        "connect_args": {"timeout": BUSY_TIMEOUT_S, "isolation_level": None},
        "json_serializer": _json,
    }

    def make_engine() -> Engine:
        engine = create_engine(URL.create("sqlite", database=str(path)), poolclass=NullPool, **options)
        sqlite_file.on_connect(engine)
        return engine

    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=str(path)),
        # Each connection is a thread: one writes, few read.
        pool_size=2,
        max_overflow=4,
        **options,
    )
    sqlite_file.on_connect(engine.sync_engine)
    sqlite_file.on_begin(engine.sync_engine)
    return Store(engine, path=path, visits=SqliteVisits(make_engine))


def _open_postgresql(state: str) -> Store:
    from sqlalchemy.exc import ArgumentError
    from sqlalchemy.ext.asyncio import create_async_engine

    try:
        url = _postgresql_url(state)
        engine = create_async_engine(
            url,
            pool_size=5,
            pool_pre_ping=True,
            json_serializer=_json,
            connect_args={
                "timeout": CONNECT_TIMEOUT_S,
                "command_timeout": CONNECT_TIMEOUT_S,
                "server_settings": {"application_name": "predawn"},
            },
        )
    except ModuleNotFoundError as exc:
        raise StoreError(f"state: PostgreSQL needs the {exc.name} driver: pip install 'predawn[postgres]'") from exc
    except (ArgumentError, ValueError) as exc:  # the text of these errors may quote the password
        raise StoreError("state: this is no URL; write postgresql://user:password@host/database") from exc
    return Store(engine)


def _postgresql_url(state: str) -> URL:
    from sqlalchemy import make_url

    url = make_url(state)
    if url.drivername not in {"postgresql", "postgres", "postgresql+asyncpg"}:
        raise StoreError(f"state: {url.drivername} is not supported; name a file, or write postgresql://…")
    # libpq's name for what asyncpg calls ssl; hosting companies print URLs with it.
    sslmode = url.query.get("sslmode")
    url = url.set(drivername="postgresql+asyncpg").difference_update_query(["sslmode"])
    return url.update_query_dict({"ssl": sslmode}) if sslmode else url


def _shown(url: URL) -> str:
    return url.set(query={}).render_as_string(hide_password=True)


def _version(connection: Connection) -> str | None:
    """The schema's version, or `None` for an empty database."""
    from sqlalchemy import inspect, text

    if not inspect(connection).has_table("alembic_version"):
        return None
    version: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return version


def _is_current(connection: Connection) -> bool:
    version = _version(connection)
    if version is not None and version > HEAD:
        raise StoreError(
            f"state {_shown(connection.engine.url)} was written by a newer Predawn (schema {version}, "
            f"this one knows {HEAD}): upgrade Predawn, or name another state"
        )
    return version == HEAD


def _migrate(connection: Connection) -> None:
    """Upgrade inside the caller's transaction; the first of several processes does it, the others find it done."""
    from sqlalchemy import text

    if connection.dialect.name == "postgresql":  # SQLite's write transaction is a lock by itself
        connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": LOCK_ID})
    if _is_current(connection):
        return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
