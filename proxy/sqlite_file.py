"""The SQLite file itself: made for its owner alone, in WAL mode, and what each connection to it is told."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

RETRY_S = 0.02


def prepare(path: Path, timeout_s: float) -> None:
    """Make sure that the file exists, is a database in WAL mode, and can be written. Blocks; raises the bare errors."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        # Only if it is not there: opening and closing a database by hand would drop this process's locks on it.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            _become_wal(path, timeout_s)
            return
        except sqlite3.OperationalError as exc:
            # Of processes that switch at once, SQLite tells all but one at once that the file is locked.
            if exc.sqlite_errorcode not in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED} or time.monotonic() > deadline:
                raise
            time.sleep(RETRY_S)


def _become_wal(path: Path, timeout_s: float) -> None:
    with closing(sqlite3.connect(path, timeout=timeout_s, isolation_level=None)) as connection:
        if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")


def on_connect(engine: Engine) -> None:
    """Tell each new connection how to behave."""
    from sqlalchemy import event

    @event.listens_for(engine, "connect")
    def tell(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA synchronous=NORMAL")  # with WAL: a power cut may lose the last moments, never more
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()


def on_begin(engine: Engine) -> None:
    """Tell each transaction whether it will write."""
    from sqlalchemy import event

    @event.listens_for(engine, "begin")
    def tell(connection: Connection) -> None:
        # A reader that starts to write late cannot wait for its turn, so writers take it at the start.
        reading = connection.get_execution_options().get("reading", False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
