"""What can be wrong with the store, in words that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class StoreError(Exception):
    """The state cannot be opened, read or written; the message names it and says what to do."""


_SQLITE_FIXES = {
    "SQLITE_BUSY": "another program has locked it: end that program, or wait for it, and try again",
    "SQLITE_LOCKED": "another program has locked it: end that program, or wait for it, and try again",
    "SQLITE_READONLY": "it is read-only: give this user the right to write the file and its folder",
    "SQLITE_PERM": "access is denied: give this user the right to write the file and its folder",
    "SQLITE_CANTOPEN": "it cannot be opened: is it a folder, or lacks this user the right to write there?",
    "SQLITE_FULL": "the disk is full: make room",
    "SQLITE_IOERR": "the disk failed to read or write: see the system's log; network folders do not work",
    "SQLITE_NOTADB": "it is not a SQLite database: name another file, or move this one away",
    "SQLITE_CORRUPT": "it is damaged: move it away and restore a backup, or let a new one be made",
}


@contextmanager
def explained(place: str) -> Iterator[None]:
    """Turn what a database driver raises into a `StoreError` about `place`, unless a statement is to blame."""
    import sqlite3

    from sqlalchemy import exc as sa

    try:
        yield
    except (sa.IntegrityError, sa.DataError):
        raise
    except (sa.DBAPIError, sa.TimeoutError, sqlite3.Error, OSError) as exc:
        raise StoreError(f"state {place}: {_words(exc)}") from exc


def _words(exc: BaseException) -> str:
    cause = getattr(exc, "orig", None) or exc
    name = getattr(cause, "sqlite_errorname", "")
    if fix := _SQLITE_FIXES.get("_".join(name.split("_")[:2])):  # a third word tells details: SQLITE_IOERR_WRITE
        return fix
    if isinstance(cause, OSError) and cause.filename and cause.strerror:
        return f"{cause.strerror} ({cause.filename}); let `state` or PREDAWN_STATE name a place this user may write"
    if isinstance(cause, (OSError, TimeoutError)):
        return f"cannot be reached ({cause}); is the server running, and is the address right?"
    return str(cause)
