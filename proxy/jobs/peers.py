"""Which processes live: each counts up a row of its own, and one whose count stands still is dead.

Only counts are compared, never clocks of two machines. A process of this machine that has ended is known to be dead at
once. All functions block: they run in threads.
"""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from predawn.proxy.migrations import LOCK_ID

if TYPE_CHECKING:
    from sqlalchemy import Engine, Table

DEAD_AFTER_LOOKS = 6
"""Looks in a row at a count that stands still. Looks that failed do not count: then nobody could write either."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A process: `id` is never used twice, `home` names the machine and `process` what `is_alive` can ask there."""

    id: str
    home: str = ""
    process: str = ""


def this_process() -> Identity:
    """The identity of this process."""
    ident = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    return Identity(ident, _home(), _process(os.getpid()))


def _home() -> str:
    """This boot of this machine and the namespace of its process ids; empty where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _process(pid: int) -> str:
    """The process id with the time it started, for ids are used again; empty if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
    is_zombie = fields[0] in {"Z", "X"}
    return "" if is_zombie else f"{pid} {fields[19]}"


def is_gone(peer: Identity) -> bool:
    """True if the peer was a process of this machine and has ended; False if that cannot be told."""
    if not peer.home or peer.home != _home() or not peer.process:
        return False
    return _process(int(peer.process.split()[0])) != peer.process


class Peers:
    """The rows of all processes that run or submit jobs."""

    def __init__(self, engine: Engine, schema: str | None, me: Identity) -> None:
        self._engine = engine
        self._table = _table(schema)
        self.me = me
        self._seen: dict[str, tuple[int, int]] = {}
        """Count and looks at it, by id."""

    def prepare(self) -> None:
        """Create the table if need be, and our row."""
        from sqlalchemy import text
        from sqlalchemy.schema import CreateTable

        with self._engine.begin() as connection:
            if connection.dialect.name == "postgresql":  # of several that create it at once, all but one would fail
                connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": LOCK_ID + 1})
            connection.execute(CreateTable(self._table, if_not_exists=True))
        self.beat()

    def beat(self) -> bool:
        """Count up; False if somebody had taken us for dead (the row is there again afterwards)."""
        from sqlalchemy import insert, update

        mine = self._table.c.id == self.me.id
        with self._engine.begin() as connection:
            done = connection.execute(update(self._table).where(mine).values(beats=self._table.c.beats + 1))
            if done.rowcount == 0:
                row = {"id": self.me.id, "home": self.me.home, "process": self.me.process, "beats": 0}
                connection.execute(insert(self._table).values(row))
        return bool(done.rowcount)

    def dead(self) -> list[str]:
        """Ids of the peers that are dead by now; call it at regular intervals."""
        with self._engine.connect() as connection:
            rows = connection.execute(self._table.select()).all()
        looks: dict[str, tuple[int, int]] = {}
        found: list[str] = []
        for row in rows:
            if row.id == self.me.id:
                continue
            beats, times = self._seen.get(row.id, (row.beats, -1))
            looks[row.id] = (row.beats, times + 1 if beats == row.beats else 0)
            if looks[row.id][1] >= DEAD_AFTER_LOOKS or is_gone(Identity(row.id, row.home, row.process)):
                found.append(row.id)
        self._seen = looks
        return found

    def alive(self) -> set[str]:
        """Ids of all that have a row."""
        with self._engine.connect() as connection:
            return set(connection.execute(self._table.select()).scalars())

    def bury(self, ids: list[str]) -> None:
        """Remove the rows of processes whose jobs have been taken over, or our own at the end."""
        from sqlalchemy import delete

        with self._engine.begin() as connection:
            connection.execute(delete(self._table).where(self._table.c.id.in_(ids)))


def _table(schema: str | None) -> Table:
    from sqlalchemy import BigInteger, Column, MetaData, Table, Text

    return Table(
        "predawn_peers",
        MetaData(schema=schema),
        Column("id", Text, primary_key=True),
        Column("home", Text, nullable=False),
        Column("process", Text, nullable=False),
        Column("beats", BigInteger, nullable=False),
    )
