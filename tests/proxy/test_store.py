import asyncio
import gc
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text

from predawn.proxy import store as store_module
from predawn.proxy import tables
from predawn.proxy.migrations import HEAD
from predawn.proxy.store import Store, StoreError, Visit, open_store, sqlite_path
from predawn.proxy.visits import THREADS

A_KEY = {"id": "k", "digest": "d", "secret_id": "s", "name": "n", "tenant": "t", "created_at": 1.0}


def python(code: str, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


async def test_an_empty_database_gets_the_tables_of_the_code(store: Store):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    async with store.read() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), tables.metadata)
        )

    assert differences == []


def test_the_head_known_to_the_code_is_that_of_the_migrations():
    from alembic.script import ScriptDirectory

    folder = Path(store_module.__file__).parent / "migrations"

    assert ScriptDirectory(str(folder)).get_heads() == [HEAD]


async def test_opening_again_changes_nothing_and_keeps_what_is_there(state: str):
    first = await open_store(state)
    async with first.begin() as connection:
        await connection.execute(insert(tables.keys).values(A_KEY))
    await first.aclose()

    second = await open_store(state)
    async with second.read() as connection:
        names = (await connection.execute(select(tables.keys.c.name))).scalars().all()
    await second.aclose()

    assert names == ["n"]


OPEN = """
import asyncio, sys
from predawn.proxy.store import open_store
async def main():
    store = await open_store(sys.argv[1])
    await store.aclose()
asyncio.run(main())
print("alembic" in sys.modules)
"""


async def test_alembic_is_imported_only_where_the_schema_is_behind(state: str):
    first = await asyncio.to_thread(lambda: python(OPEN, state).communicate())
    second = await asyncio.to_thread(lambda: python(OPEN, state).communicate())

    assert (first, second) == (("True\n", ""), ("False\n", ""))


async def test_processes_that_start_at_once_do_not_disturb_each_other(state: str):
    started = [python(OPEN, state) for _ in range(4)]
    ended = await asyncio.gather(*(asyncio.to_thread(process.communicate) for process in started))

    assert [process.returncode for process in started] == [0, 0, 0, 0]
    assert [errors for _, errors in ended] == ["", "", "", ""]


async def test_a_transaction_that_raises_leaves_nothing(store: Store):
    async def fail() -> None:
        async with store.begin() as connection:
            await connection.execute(insert(tables.keys).values(A_KEY))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()

    async with store.read() as connection:
        assert (await connection.execute(select(tables.keys))).all() == []


async def test_a_cancelled_transaction_leaves_nothing_and_the_store_goes_on(store: Store):
    reached = asyncio.Event()

    async def write() -> None:
        async with store.begin() as connection:
            await connection.execute(insert(tables.keys).values(A_KEY))
            reached.set()
            await asyncio.Event().wait()

    task = asyncio.get_running_loop().create_task(write())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with store.begin() as connection:
        await connection.execute(insert(tables.keys).values({**A_KEY, "name": "after"}))

    async with store.read() as connection:
        assert (await connection.execute(select(tables.keys.c.name))).scalars().all() == ["after"]


async def test_readers_do_not_wait_for_a_writer(store: Store):
    async with store.begin() as writing:
        await writing.execute(insert(tables.keys).values(A_KEY))
        async with store.read() as reading:
            found = (await reading.execute(select(tables.keys))).all()

    assert found == []


async def test_writers_take_turns(store: Store):
    day = {"day": date(2030, 1, 1), "tenant": "t", "key_id": "k"}
    counts = {"prompt_tokens": 0, "cached_prompt_tokens": 0, "output_tokens": 0, "spend_nano_usd": 0}
    query = store.insert(tables.usage).values(**day, **counts, requests=1)
    query = query.on_conflict_do_update(
        index_elements=["day", "tenant", "key_id"], set_={"requests": tables.usage.c.requests + 1}
    )

    async def write() -> None:
        async with store.begin() as connection:
            await connection.execute(query)

    await asyncio.gather(*(write() for _ in range(20)))

    async with store.read() as connection:
        assert (await connection.execute(select(tables.usage.c.requests))).scalars().all() == [20]


async def test_a_schema_from_the_future_is_refused_with_the_fix(state: str):
    store = await open_store(state)
    async with store.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await store.aclose()

    with pytest.raises(StoreError, match="newer Predawn .*9999.*upgrade Predawn"):
        await open_store(state)


async def test_a_missing_table_is_an_error_of_the_state(store: Store):
    async with store.begin() as connection:
        await connection.execute(text("DROP TABLE keys"))

    with pytest.raises(StoreError, match="keys"):
        async with store.read() as connection:
            await connection.execute(select(tables.keys))


async def test_closing_twice_does_no_harm(store: Store):
    await store.aclose()
    await store.aclose()


def names_in(visit: Visit) -> list[str]:
    with visit.read() as connection:
        return list(connection.execute(select(tables.keys.c.name)).scalars())


def add_a_key(visit: Visit) -> None:
    with visit.begin() as connection:
        connection.execute(insert(tables.keys).values(A_KEY))


class TestVisit:
    async def test_one_visit_may_read_and_write_and_read(self, store: Store):
        def work(visit: Visit) -> list[list[str]]:
            seen = [names_in(visit)]
            add_a_key(visit)
            return [*seen, names_in(visit)]

        assert await store.visit(work) == [[], ["n"]]
        assert await store.visit(names_in) == ["n"]

    async def test_a_transaction_that_raises_leaves_nothing_and_those_before_it_stay(self, store: Store):
        def work(visit: Visit) -> None:
            add_a_key(visit)
            with visit.begin() as connection:
                connection.execute(tables.keys.update().values(name="other"))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await store.visit(work)

        assert await store.visit(names_in) == ["n"]

    async def test_its_errors_are_those_of_the_store(self, store: Store):
        from sqlalchemy.exc import IntegrityError

        await store.visit(add_a_key)
        with pytest.raises(IntegrityError):
            await store.visit(add_a_key)
        async with store.begin() as connection:
            await connection.execute(text("DROP TABLE keys"))

        with pytest.raises(StoreError, match="keys"):
            await store.visit(names_in)

    async def test_it_neither_waits_for_a_writer_nor_holds_one_up_when_it_reads(self, store: Store):
        def read_in_turn(visit: Visit) -> None:
            with visit.read() as connection:
                connection.execute(select(tables.keys)).all()
                asyncio.run_coroutine_threadsafe(write(), loop).result()

        async def write() -> None:
            async with store.begin() as connection:
                await connection.execute(insert(tables.keys).values(A_KEY))

        loop = asyncio.get_running_loop()
        async with store.begin() as writing:
            await writing.execute(text("UPDATE usage SET requests = 0"))
            while_written = await store.visit(names_in)
        if store.dialect == "sqlite":  # on a server it would wait for this very loop
            await store.visit(read_in_turn)

        assert while_written == []

    async def test_a_store_that_was_closed_opens_again(self, store: Store):
        await store.visit(add_a_key)
        await store.aclose()

        assert await store.visit(names_in) == ["n"]


class TestSqlite:
    async def test_only_the_owner_can_read_folder_and_files(self, tmp_path: Path):
        path = tmp_path / "new" / "state.db"
        store = await open_store(str(path))
        async with store.begin() as connection:
            await connection.execute(insert(tables.keys).values(A_KEY))
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        await store.aclose()

        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert modes == {"state.db": 0o600, "state.db-shm": 0o600, "state.db-wal": 0o600}

    async def test_writes_go_to_a_log_ahead(self, tmp_path: Path):
        store = await open_store(str(tmp_path / "state.db"))
        async with store.read() as connection:
            pragmas = [
                (await connection.execute(text(f"PRAGMA {name}"))).scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            ]
        await store.aclose()

        assert pragmas == ["wal", 1, 1, 5000]

    async def test_visits_are_told_what_connections_are_told(self, tmp_path: Path):
        def pragmas(visit: Visit) -> list[object]:
            with visit.read() as connection:
                names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
                return [connection.scalar(text(f"PRAGMA {name}")) for name in names]

        store = await open_store(str(tmp_path / "state.db"))
        told = await store.visit(pragmas)
        await store.aclose()

        assert told == ["wal", 1, 1, 5000]

    async def test_a_visit_to_a_locked_file_names_it_and_others_may_read_meanwhile(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(store_module, "BUSY_TIMEOUT_S", 0.3)
        path = tmp_path / "state.db"
        store = await open_store(str(path))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            writing = asyncio.get_running_loop().create_task(store.visit(add_a_key))
            await asyncio.sleep(0)
            seen = await store.visit(names_in)
            is_waiting = not writing.done()
            with pytest.raises(StoreError, match=r"state\.db: another program has locked it"):
                await writing
        await store.visit(add_a_key)
        seen += await store.visit(names_in)
        await store.aclose()

        assert is_waiting
        assert seen == ["n"]

    async def test_visits_that_write_take_turns_from_their_begin(self, tmp_path: Path):
        def count(visit: Visit) -> None:
            with visit.begin() as connection:
                before = connection.scalar(select(tables.keys.c.created_at)) or 0
                connection.execute(tables.keys.update().values(created_at=before + 1))

        store = await open_store(str(tmp_path / "state.db"))
        await store.visit(add_a_key)
        await asyncio.gather(*(store.visit(count) for _ in range(40)))
        async with store.read() as connection:
            counted = await connection.scalar(select(tables.keys.c.created_at))
        await store.aclose()

        assert counted == 41

    async def test_whoever_is_cancelled_hears_it_when_the_visit_has_ended(self, tmp_path: Path):
        begun, may_go_on, ended = threading.Event(), threading.Event(), threading.Event()

        def work(visit: Visit) -> None:
            begun.set()
            may_go_on.wait()
            add_a_key(visit)
            ended.set()

        store = await open_store(str(tmp_path / "state.db"))
        visiting = asyncio.get_running_loop().create_task(store.visit(work))
        await asyncio.to_thread(begun.wait)
        for _ in range(3):  # however often
            visiting.cancel()
            await asyncio.sleep(0)
        is_waiting = not visiting.done()
        may_go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await visiting
        has_ended = ended.is_set()
        names = await store.visit(names_in)
        await store.aclose()

        assert (is_waiting, has_ended, names) == (True, True, ["n"])

    @pytest.mark.parametrize("times", [1, 3])
    async def test_a_visit_that_fails_after_it_was_cancelled_is_no_crash(self, tmp_path: Path, times: int):
        begun, may_go_on = threading.Event(), threading.Event()

        def work(_: Visit) -> None:
            begun.set()
            may_go_on.wait()
            raise ZeroDivisionError

        store = await open_store(str(tmp_path / "state.db"))
        complaints: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        visiting = asyncio.get_running_loop().create_task(store.visit(work))
        await asyncio.to_thread(begun.wait)
        for _ in range(times):
            visiting.cancel()
            await asyncio.sleep(0)
        may_go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await visiting
        del visiting
        await store.aclose()
        gc.collect()

        assert complaints == []

    async def test_a_visit_that_is_cancelled_before_its_turn_never_begins(self, tmp_path: Path):
        may_go_on = threading.Event()
        begun: list[Visit] = []
        store = await open_store(str(tmp_path / "state.db"))
        loop = asyncio.get_running_loop()
        waiting = [loop.create_task(store.visit(lambda _: may_go_on.wait())) for _ in range(THREADS)]
        last = loop.create_task(store.visit(begun.append))
        await asyncio.sleep(0)
        last.cancel()
        with pytest.raises(asyncio.CancelledError):
            await last
        may_go_on.set()
        await asyncio.gather(*waiting)
        await store.aclose()

        assert begun == []

    async def test_a_file_that_is_no_database_is_named_with_the_fix(self, tmp_path: Path):
        path = tmp_path / "notes.txt"
        path.write_text("these are notes, and more of them, so that a header of 16 bytes fits")

        with pytest.raises(StoreError, match=r"notes\.txt: it is not a SQLite database: name another file"):
            await open_store(str(path))
        assert path.read_text().startswith("these are notes")

    async def test_a_folder_in_place_of_the_file_is_named(self, tmp_path: Path):
        with pytest.raises(StoreError, match=f"{tmp_path}: it cannot be opened: is it a folder"):
            await open_store(str(tmp_path))

    async def test_a_file_in_place_of_the_folder_is_named(self, tmp_path: Path):
        (tmp_path / "file").touch()

        with pytest.raises(StoreError, match="file.*PREDAWN_STATE name a place"):
            await open_store(str(tmp_path / "file" / "state.db"))

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
    async def test_a_file_that_may_not_be_written_is_named(self, tmp_path: Path):
        path = tmp_path / "state.db"
        await (await open_store(str(path))).aclose()
        path.chmod(0o400)

        with pytest.raises(StoreError, match="read-only"):
            await open_store(str(path))

    async def test_a_file_locked_by_another_program_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(store_module, "CONNECT_TIMEOUT_S", 0.1)
        path = tmp_path / "state.db"
        await (await open_store(str(path))).aclose()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")

            with pytest.raises(StoreError, match=r"state\.db: another program has locked it"):
                await open_store(str(path))

    async def test_a_damaged_file_is_named(self, tmp_path: Path):
        path = tmp_path / "state.db"
        await (await open_store(str(path))).aclose()
        content = bytearray(path.read_bytes())
        content[4096:] = b"\xff" * (len(content) - 4096)
        path.write_bytes(content)

        with pytest.raises(StoreError, match=r"state\.db: it is damaged"):
            await open_store(str(path))

    async def test_a_state_in_memory_is_refused(self):
        with pytest.raises(StoreError, match="name a file"):
            await open_store(":memory:")

    @pytest.mark.parametrize(
        ("state", "path"),
        [
            ("state.db", Path("state.db")),
            ("~/state.db", Path.home() / "state.db"),
            ("sqlite:///rel.db", Path("rel.db")),
            ("sqlite:////abs/s.db", Path("/abs/s.db")),
            ("sqlite+aiosqlite:////abs/s.db", Path("/abs/s.db")),
            ("postgresql://host/db", None),
            ("postgres://host/db", None),
            ("C:\\state.db", Path("C:\\state.db")),
        ],
    )
    def test_a_state_is_a_file_unless_it_is_a_url(self, state: str, path: Path | None):
        assert sqlite_path(state) == path


class TestServer:
    async def test_one_that_is_away_is_named_without_its_password(self):
        with pytest.raises(StoreError) as caught:
            await open_store("postgresql://me:sesame@127.0.0.1:1/db")

        assert "me:***@127.0.0.1:1/db: cannot be reached" in str(caught.value)
        assert "sesame" not in str(caught.value)

    @pytest.mark.parametrize(
        "state",
        [
            "mysql://me:sesame@host/db",
            "oracle+x://me:sesame@host/db",
            "postgresql://me:sesame@host:port/db",
            "postgresql+psycopg://me:sesame@host/db",
            "://sesame",
        ],
    )
    async def test_other_urls_are_refused_without_repeating_them(self, state: str):
        with pytest.raises(StoreError) as caught:
            await open_store(state)

        assert "sesame" not in str(caught.value)

    async def test_an_unknown_option_of_the_url_is_an_error_of_the_state(self):
        with pytest.raises(StoreError, match="colour"):
            await open_store("postgresql://me:sesame@127.0.0.1:1/db?colour=blue")

    async def test_its_password_is_not_shown(self):
        store = store_module._open_postgresql("postgres://me:sesame@host/db?sslmode=require&password=sesame")

        shown = f"{store!r} {store.url}"
        assert "sesame" not in shown
        assert store.url == "postgresql+asyncpg://me:***@host/db"


WRITE = """
import asyncio, sys
from predawn.plugins.testing.clock import ManualClock
from predawn.proxy.spend import Usage, UsageBook
from predawn.proxy.store import open_store
async def main():
    store = await open_store(sys.argv[1])
    book = UsageBook(ManualClock())
    print("ready", flush=True)
    while True:
        for key in ("a", "b", "c"):
            book.book("t", key, Usage(1, 2, 3, 4, 5))
        await book.sync(store, reads_spend=True)
asyncio.run(main())
"""


async def test_a_process_killed_while_it_writes_leaves_whole_transactions(state: str):
    for delay_s in (0.0, 0.03, 0.07):
        process = python(WRITE, state)
        assert process.stdout is not None
        await asyncio.to_thread(process.stdout.readline)
        await asyncio.sleep(delay_s)  # a different moment of its loop each time
        process.kill()
        await asyncio.to_thread(process.communicate)

    store = await open_store(state)
    async with store.read() as connection:
        rows = (await connection.execute(select(tables.usage))).all()
        if store.dialect == "sqlite":
            assert (await connection.execute(text("PRAGMA integrity_check"))).scalar() == "ok"
    await store.aclose()

    assert len({row.requests for row in rows}) <= 1
    assert all(row.spend_nano_usd == 5 * row.requests for row in rows)
