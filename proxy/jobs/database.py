"""Where jobs are kept: a SQLite file beside the state's, or a schema of its own in the state's PostgreSQL database."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from predawn.proxy.jobs.protocol import JobsError
from predawn.proxy.store import sqlite_path
from predawn.proxy.store_errors import explained

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

SCHEMA = "predawn_jobs"
"""Of PostgreSQL: the tables of jobs, apart from the state's and from those of others who use DBOS."""
BUSY_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10
LOG_TIMEOUT_S = 0.1


def place(state: str) -> str:
    """The jobs' database as shown to people, without a password."""
    path = jobs_path(state)
    if path is not None:
        return str(path)
    parts = urlsplit(state)
    return f"{parts.scheme}://{parts.hostname}{parts.path}"


def jobs_path(state: str) -> Path | None:
    """The SQLite file for the jobs of a `state`, or `None` where that is a server."""
    path = sqlite_path(state)
    if path is not None and path.name == ":memory:":
        raise JobsError("state: ':memory:' would be forgotten at the end; name a file")
    return path.with_name(f"{path.stem}-jobs{path.suffix or '.db'}") if path is not None else None


def connect(state: str) -> Engine:
    """An engine that reaches the database; blocks. Raises `JobsError`."""
    path = jobs_path(state)
    with explained(place(state)):
        engine = _sqlite(path) if path is not None else _postgresql(state)
        try:
            with engine.connect():
                pass
        except BaseException:
            engine.dispose()
            raise
    return engine


def disconnect(engine: Engine) -> None:
    """Close all connections: those that threads still use, when they give them back; blocks."""
    from sqlalchemy import event

    @event.listens_for(engine, "checkin")
    def close(_connection: Any, record: Any) -> None:
        record.invalidate()

    engine.dispose()


def empty_log(state_of_jobs: Engine) -> bool:
    """Move SQLite's write-ahead log, where what was deleted still stands, into the file; blocks. False if somebody
    reads or writes there just now."""
    import sqlite3

    path = state_of_jobs.url.database
    if state_of_jobs.dialect.name != "sqlite" or path is None:
        return True
    with closing(sqlite3.connect(path, timeout=LOG_TIMEOUT_S)) as connection, suppress(sqlite3.OperationalError):
        is_busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not is_busy
    return False


def _sqlite(path: Path) -> Engine:
    from sqlalchemy import URL, create_engine, event

    from predawn.proxy import sqlite_file

    sqlite_file.prepare(path, CONNECT_TIMEOUT_S)
    url = URL.create("sqlite", database=str(path))
    engine = create_engine(url, pool_size=5, max_overflow=10, connect_args={"timeout": BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = "IMMEDIATE"  # writers take their turn at the start; DBOS counts on it
        for pragma in ("foreign_keys=ON", "synchronous=NORMAL", "secure_delete=ON"):  # what is purged is overwritten
            connection.execute(f"PRAGMA {pragma}")

    return engine


def _postgresql(state: str) -> Engine:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import ArgumentError

    try:
        return create_engine(
            postgresql_url(state),
            pool_size=5,
            max_overflow=10,
            pool_pre_ping=True,
            connect_args={"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "predawn-jobs"},
        )
    except ModuleNotFoundError as exc:
        raise JobsError(f"state: jobs need the {exc.name} driver: pip install 'predawn[jobs]'") from exc
    except (ArgumentError, ValueError) as exc:  # the text of these errors may quote the password
        raise JobsError("state: this is no URL; write postgresql://user:password@host/database") from exc


def postgresql_url(state: str) -> URL:
    """The URL of `state` for psycopg, which calls `sslmode` what asyncpg calls `ssl`."""
    from sqlalchemy import make_url

    url = make_url(state).set(drivername="postgresql+psycopg")
    ssl = url.query.get("ssl")
    return url.difference_update_query(["ssl"]).update_query_dict({"sslmode": ssl}) if ssl else url
