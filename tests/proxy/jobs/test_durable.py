"""What holds of DBOS alone: where jobs are kept, what purging leaves, who takes over from whom."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, text

from predawn.proxy.clock import SystemClock
from predawn.proxy.jobs import database
from predawn.proxy.jobs.durable import DurableJobEngine
from predawn.proxy.jobs.peers import DEAD_AFTER_LOOKS, Identity
from predawn.proxy.jobs.protocol import DEFAULT_QUEUE, JobsError

ELSEWHERE = "another machine"
"""The home of peers whose process cannot be looked up here."""


@asynccontextmanager
async def opened(state: str, **options: Any) -> AsyncIterator[DurableJobEngine]:
    engine = await DurableJobEngine.open(state, SystemClock(), poll_s=0.02, **options)
    try:
        yield engine
    finally:
        await engine.aclose()


async def killed(engine: DurableJobEngine) -> None:
    """End an engine as `kill -9` would: its rows stay as they are."""
    for queue in tuple(engine._queues):
        engine.pause(queue)
    await engine._runs.drain()
    await engine._dispose()


async def ended(engine: DurableJobEngine, job_id: str) -> Any:
    async with asyncio.timeout(20):
        while (job := await engine.state(job_id)).state in ("queued", "running"):
            await asyncio.sleep(0.01)
    return job


class Held:
    """A job of two steps whose second waits until the test lets it go."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.entered = asyncio.Event()
        self.let_go = asyncio.Event()

    async def first(self) -> str:
        self.calls.append("first")
        return "words of step one"

    async def second(self) -> None:
        self.calls.append("second")
        self.entered.set()
        await self.let_go.wait()

    async def __call__(self, steps: Any, arguments: Any) -> None:
        await steps.run("first", self.first)
        await steps.run("second", self.second)


def rows(engine: DurableJobEngine) -> dict[str, int]:
    """How many rows each table has that holds any."""
    schema = None if engine._engine.dialect.name == "sqlite" else database.SCHEMA
    counted = {}
    with engine._engine.connect() as connection:
        for table in inspect(connection).get_table_names(schema=schema):
            name = f"{schema}.{table}" if schema else table
            counted[table] = connection.execute(text(f"SELECT count(*) FROM {name}")).scalar()
    return {table: count for table, count in counted.items() if count}


async def test_purging_leaves_no_row_behind(state):
    async with opened(state) as engine:
        before = rows(engine)
        held = Held()
        engine.register("held", held)
        await engine.start()
        await engine.submit("held", "running", {"secret": "of a running job"})
        await held.entered.wait()
        during = rows(engine)
        await engine.purge(["running"])

        assert sum(during.values()) > sum(before.values())
        assert rows(engine) == before


async def test_a_step_that_ends_after_its_job_was_purged_elsewhere_writes_nothing(state, caplog):
    async with opened(state) as engine:
        before = rows(engine)
        held = Held()
        engine.register("held", held)
        await engine.start()
        await engine.submit("held", "j", {"secret": "of a running job"})
        await held.entered.wait()
        await engine.apart(engine.dbos.cancel_workflows, ["j"])
        await engine.apart(engine.dbos.delete_workflows, ["j"])
        held.let_go.set()
        async with asyncio.timeout(10):
            while engine._runs.ids:
                await asyncio.sleep(0.01)
        await engine.tend()

        assert rows(engine) == before
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def found_in_files(state: str, word: bytes) -> list[str]:
    """The files of jobs that have a word in them, the log included."""
    path = database.jobs_path(state)
    assert path is not None
    return sorted(file.name for file in path.parent.glob(f"{path.name}*") if word in file.read_bytes())


@pytest.mark.parametrize("is_read", [False, True])
async def test_what_is_purged_is_gone_from_the_files_too(tmp_path: Path, is_read: bool) -> None:
    """At once; or where somebody reads the log just then, as soon as that is over."""
    state = str(tmp_path / "state.db")
    async with opened(state) as engine:
        held = Held()
        held.let_go.set()
        engine.register("held", held)
        await engine.start()
        await engine.submit("held", "j", {"secret": "a-word-found-nowhere-else"})
        await ended(engine, "j")
        before = found_in_files(state, b"a-word-found-nowhere-else")
        with closing(sqlite3.connect(database.jobs_path(state), isolation_level=None)) as reader:
            if is_read:
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM workflow_status").fetchone()
            await engine.purge(["j"])
        await engine.tend()
        words = (b"a-word-found-nowhere-else", b"words of step one")

        assert before != []
        assert [found_in_files(state, word) for word in words] == [[], []]


async def test_several_processes_may_open_an_empty_database_at_once(state):
    code = (
        "import asyncio, sys\n"
        "from predawn.proxy.clock import SystemClock\n"
        "from predawn.proxy.jobs.durable import DurableJobEngine\n"
        "async def main():\n"
        "    engine = await DurableJobEngine.open(sys.argv[1], SystemClock())\n"
        "    await engine.submit('nothing', f'j{sys.argv[2]}', None)\n"
        "    await engine.aclose()\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, state]
    started = [await asyncio.create_subprocess_exec(*command, str(n), stderr=asyncio.subprocess.PIPE) for n in range(4)]
    said = [(await process.communicate())[1].decode() for process in started]

    assert said == ["", "", "", ""]


async def test_jobs_are_kept_beside_the_state(tmp_path):
    async with opened(str(tmp_path / "deep" / "state.db")):
        pass

    path = tmp_path / "deep" / "state-jobs.db"
    assert path.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_dbos_looks_seldom_for_what_it_never_gets(tmp_path, monkeypatch):
    from dbos._sys_db import SystemDatabase

    looks: Counter[str] = Counter()
    delayed, queued = SystemDatabase.transition_delayed_workflows, SystemDatabase.start_queued_workflows

    def look_for_delayed(self: Any) -> Any:
        looks["delayed"] += 1
        return delayed(self)

    def look_for_queued(self: Any, queue: Any, *args: Any, **kwargs: Any) -> Any:
        looks[queue.name] += 1
        return queued(self, queue, *args, **kwargs)

    monkeypatch.setattr(SystemDatabase, "transition_delayed_workflows", look_for_delayed)
    monkeypatch.setattr(SystemDatabase, "start_queued_workflows", look_for_queued)
    async with opened(str(tmp_path / "state.db")):
        await asyncio.sleep(2.5)

    assert looks.pop(DEFAULT_QUEUE) > 10
    assert looks == {"delayed": 1}


async def test_values_are_stored_as_json(tmp_path):
    state = str(tmp_path / "state.db")
    async with opened(state) as engine:
        held = Held()
        held.let_go.set()
        engine.register("held", held)
        await engine.start()
        await engine.submit("held", "j", {"a": 1})
        await ended(engine, "j")
        with engine._engine.connect() as connection:
            outputs = [row[0] for row in connection.execute(text("SELECT output FROM operation_outputs"))]

    assert outputs == ['{"value":"words of step one"}', '{"value":null}']


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("evil",))


async def test_a_pickle_in_the_database_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    async with opened(str(tmp_path / "state.db")) as engine:
        held = Held()
        held.let_go.set()
        engine.register("held", held)
        engine.pause()  # else it may have been read before
        await engine.submit("held", "j", None)
        pickled = base64.b64encode(pickle.dumps(Evil())).decode()
        with engine._engine.begin() as connection:
            for table, column in (("workflow_status", "inputs"), ("workflow_input", "inputs")):
                known = {found["name"] for found in inspect(connection).get_columns(table)}
                if column in known:
                    connection.execute(text(f"UPDATE {table} SET {column} = :p"), {"p": pickled})
            connection.execute(text("UPDATE workflow_status SET serialization = 'py_pickle'"))
        await engine.start()
        engine.resume()
        async with asyncio.timeout(20):
            while (await engine.list(workflow_ids=["j"]))[0].status in ("ENQUEUED", "PENDING"):
                await asyncio.sleep(0.01)

    assert held.calls == []
    assert not (tmp_path / "evil").exists()


async def test_a_dead_peer_is_noticed_by_its_silence_and_its_job_goes_on(state):
    held = Held()
    dead = await DurableJobEngine.open(state, SystemClock(), poll_s=0.02, me=Identity("dead", ELSEWHERE, "1 1"))
    dead.register("held", held)
    await dead.start()
    await dead.submit("held", "j", None)
    await held.entered.wait()
    await killed(dead)
    held.let_go.set()

    async with opened(state) as engine:
        engine.register("held", held)
        await engine.start()
        for _ in range(DEAD_AFTER_LOOKS):
            await engine.take_over()
        silent = await engine.state("j")
        await engine.take_over()
        job = await ended(engine, "j")

    assert silent.state == "running"
    assert job.state == "done"
    assert held.calls == ["first", "second", "second"]


async def test_a_peer_that_lives_keeps_its_job(state):
    held = Held()
    peer = Identity("peer", ELSEWHERE, "1 1")
    async with opened(state, me=peer) as engine:
        engine.register("held", held)
        await engine.start()
        await engine.submit("held", "j", None)
        await held.entered.wait()
        peers = type(engine.peers)(engine._engine, engine.peers._table.schema, Identity("watcher"))
        peers.beat()
        found = []
        for _ in range(3 * DEAD_AFTER_LOOKS):
            await engine.take_over()
            found += peers.dead()
        held.let_go.set()
        await ended(engine, "j")

    assert found == []
    assert held.calls == ["first", "second"]


async def test_looks_that_fail_do_not_count_as_silence(state):
    async with opened(state) as engine:
        other = type(engine.peers)(engine._engine, engine.peers._table.schema, Identity("other", ELSEWHERE, "1 1"))
        other.beat()
        found = []
        for _ in range(DEAD_AFTER_LOOKS):
            found += engine.peers.dead()
        other.beat()
        for _ in range(DEAD_AFTER_LOOKS):
            found += engine.peers.dead()

        assert found == []
        assert engine.peers.dead() == ["other"]


async def test_a_process_of_this_machine_that_has_ended_is_dead_at_once(state):
    from predawn.proxy.jobs import peers

    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = Identity("gone", peers._home(), peers._process(process.pid))
    async with opened(state) as engine:
        other = type(engine.peers)(engine._engine, engine.peers._table.schema, identity)
        other.beat()
        alive = engine.peers.dead()
        process.kill()
        process.wait()
        process.stdin.close()

        assert alive == []
        assert engine.peers.dead() == ["gone"]


async def test_a_job_taken_over_while_its_process_was_stopped_ends_there(state):
    """A process may sleep for minutes (a laptop's lid, `kill -STOP`) and wake up to find its job elsewhere."""
    held = Held()
    async with opened(state) as engine:
        engine.register("held", held)
        await engine.start()
        await engine.submit("held", "j", None)
        await held.entered.wait()
        for queue in engine._queues:
            engine.pause(queue)
        await engine.apart(engine.peers.bury, [engine.peers.me.id])
        await engine.apart(engine.dbos._recover_pending_workflows, [engine.peers.me.id])
        await engine.tend()

        assert engine._runs.ids == frozenset()
        assert (await engine.state("j")).state == "queued"

        held.let_go.set()
        engine.resume()
        await ended(engine, "j")

    assert held.calls == ["first", "second", "second"]


class Late:
    """Lets a job of an engine, which DBOS has taken from its queue, be on its way to us until the test lets it go."""

    def __init__(self, engine: DurableJobEngine, job_id: str) -> None:
        self.taken: list[str] = []
        self.let_go = asyncio.Event()
        self._engine, self._late, self._work = engine, job_id, engine._work
        engine._work = self

    async def __call__(self, *given: Any) -> Any:
        job_id = self._engine.dbos.workflow_id
        self.taken.append(job_id)
        if job_id == self._late:
            await self.let_go.wait()
        return await self._work(*given)

    async def come(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.taken) < count:
                await asyncio.sleep(0.01)


class Lost:
    """A job whose outcome could not be stored the first time; DBOS leaves it as it was."""

    def __init__(self) -> None:
        self.runs = 0

    async def __call__(self, steps: Any, arguments: Any) -> None:
        self.runs += 1
        if self.runs == 1:
            raise asyncio.CancelledError


async def test_a_job_on_its_way_to_us_is_not_given_back_by_a_start(state):
    """It does not run yet; given back, it would run twice."""
    async with opened(state) as engine:
        late = Late(engine, "j")
        await engine.start()
        await engine.submit("held", "j", None)
        await late.come(1)
        engine.register("held", Held())
        await engine.start()
        await asyncio.sleep(0.1)  # five looks at the queue

        assert late.taken == ["j"]
        late.let_go.set()


async def test_a_job_whose_outcome_could_not_be_stored_is_done_again_alone(state):
    """It is ours and does not run, and nobody else would look at it. One on its way to us is left in peace."""
    async with opened(state) as engine:
        late = Late(engine, "j")
        engine.register("lost", Lost())
        await engine.start()
        await engine.submit("lost", "l", None)
        await late.come(1)
        await engine.take_over()
        await engine.take_over()
        await engine.submit("held", "j", None)
        await late.come(2)

        assert late.taken == ["l", "j"]
        await engine.take_over()
        assert (await ended(engine, "l")).state == "done"
        await asyncio.sleep(0.1)  # five looks at the queue
        assert late.taken == ["l", "j", "l"]
        late.let_go.set()


async def test_a_job_purged_while_it_is_given_back_keeps_none_from_being_so(state, monkeypatch):
    held = Held()
    held.let_go.set()
    async with opened(state) as engine:
        listed = engine.list

        async def purged_at_once(**which: Any) -> Any:
            found = await listed(**which)
            await engine.ask(engine.dbos.delete_workflows, ["a"])
            return found

        await engine.start()
        await engine.submit("held", "a", None)
        await engine.submit("held", "b", None)
        async with asyncio.timeout(20):
            while engine._runs.orphans != {"a", "b"}:
                await asyncio.sleep(0.01)
        engine.register("held", held)
        monkeypatch.setattr(engine, "list", purged_at_once)
        await engine.start()
        monkeypatch.undo()

        assert (await ended(engine, "b")).state == "done"
        assert await engine.state("a") is None


async def test_a_job_cancelled_elsewhere_stops_here(state):
    held = Held()
    async with opened(state) as engine:
        engine.register("held", held)
        await engine.start()
        await engine.submit("held", "j", None)
        await held.entered.wait()
        await engine.apart(engine.dbos.cancel_workflows, ["j"])
        await engine.tend()

        assert engine._runs.ids == frozenset()
        assert (await engine.state("j")).state == "cancelled"


async def test_finished_jobs_are_forgotten_after_a_while(state):
    clock = SystemClock()
    async with opened(state) as engine:
        held = Held()
        engine.register("held", held)
        await engine.start()
        await engine.submit("held", "running", None)
        await held.entered.wait()
        held.let_go.set()
        await ended(engine, "running")
        held.let_go.clear()
        held.entered.clear()
        await engine.submit("held", "still running", None)
        await held.entered.wait()

        assert await engine.forget_finished(clock.now() - 3600) == 0
        assert await engine.forget_finished(clock.now() + 1) == 1
        assert await engine.state("running") is None
        assert (await engine.state("still running")).state == "running"


async def test_who_only_submits_runs_nothing(state):
    held = Held()
    async with opened(state, run=False) as engine:
        engine.register("held", held)
        await engine.start()
        await engine.submit("held", "j", None)
        await asyncio.sleep(0.2)

        assert held.calls == []

    held.let_go.set()
    async with opened(state) as engine:
        engine.register("held", held)
        await engine.start()

        assert (await ended(engine, "j")).state == "done"


async def test_a_connection_that_is_in_use_at_the_end_is_closed_when_it_is_given_back(state):
    async with opened(state) as engine:
        in_use = engine._engine.connect()
    driver_s = in_use.connection.driver_connection
    in_use.close()

    with pytest.raises(Exception, match="closed"):
        driver_s.execute("SELECT 1")


async def test_it_leaves_the_process_as_it_was(state, caplog, capfd):
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    environment = dict(os.environ)
    folder = set(Path.cwd().iterdir())
    root = list(logging.getLogger().handlers)
    threads = {thread.name for thread in threading.enumerate()}
    async with opened(state) as engine:
        held = Held()
        engine.register("held", held)
        await engine.start()
        await engine.submit("held", "j", None)
        await held.entered.wait()

        assert {number: signal.getsignal(number) for number in handlers} == handlers
    value = await asyncio.to_thread(lambda: "threads work as before")

    assert value == "threads work as before"
    assert dict(os.environ) == environment
    assert set(Path.cwd().iterdir()) == folder
    assert logging.getLogger().handlers == root
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")
    left = {thread.name for thread in threading.enumerate() if thread.is_alive()} - threads
    assert {name for name in left if not name.startswith("predawn-threads")} == set()


async def test_the_event_loop_is_not_held_up(state):
    """Opening and closing take time in threads; what DBOS does on the loop itself must stay short.

    The best of three rounds, for a busy machine holds loops up too.
    """
    gaps = [0.0]
    longest = []

    async def watch():
        loop = asyncio.get_running_loop()
        last = loop.time()
        while True:
            await asyncio.sleep(0.005)
            gaps.append(loop.time() - last)
            last = loop.time()

    from predawn.proxy.tasks import Tasks

    tasks = Tasks()
    async with opened(state):  # imports
        pass
    tasks.spawn(watch(), "watch")
    for round_number in range(3):
        gaps[:] = [0.0]
        async with opened(state) as engine:
            held = Held()
            held.let_go.set()
            engine.register("held", held)
            await engine.start()
            ids = [f"j{round_number}.{number}" for number in range(5)]
            for job_id in ids:
                await engine.submit("held", job_id, None)
            for job_id in ids:
                await ended(engine, job_id)
        longest.append(max(gaps))
    await tasks.cancel()

    assert min(longest) < 0.2


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (":memory:", "name a file"),
        ("postgresql://nobody:hunter2@127.0.0.1:1/none", "127.0.0.1"),
        ("/proc/1/nowhere/state.db", "/proc/1"),
    ],
)
async def test_what_cannot_be_opened_is_named_without_its_password(state, words):
    from predawn.proxy.store_errors import StoreError

    with pytest.raises(StoreError) as caught:
        await DurableJobEngine.open(state, SystemClock())

    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)


async def test_an_engine_can_be_opened_after_one_that_could_not(tmp_path):
    with pytest.raises((JobsError, Exception)):
        await DurableJobEngine.open("/proc/1/nowhere/state.db", SystemClock())
    async with opened(str(tmp_path / "state.db")) as engine:
        assert await engine.state("j") is None
