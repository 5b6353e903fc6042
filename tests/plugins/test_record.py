"""`record`: every finished exchange reaches the store once, whole, and is shown to its own tenant only."""

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
from contextlib import asynccontextmanager
from dataclasses import fields
from types import SimpleNamespace

import pytest

from predawn.plugins import Call, Chunk, Exchange, Ledger, RequestError, Verdict
from predawn.plugins.record import RecordPlugin, RecordSettings
from predawn.plugins.record.snapshot import Snapshot
from predawn.plugins.record.writer import BATCH, Writer, keep_retention
from predawn.plugins.testing.clock import ManualClock
from predawn.proxy import history
from predawn.proxy.store import StoreError, open_store
from predawn.proxy.tables import exchanges
from predawn.proxy.tasks import Tasks


@pytest.fixture
async def store(tmp_path):
    opened = await open_store(str(tmp_path / "state.db"))
    yield opened
    await opened.aclose()


class App:
    """What the plugin uses of the server."""

    def __init__(self, store):
        self.clock = ManualClock()
        self.tasks = Tasks()
        self.fails = 0
        self.opened = store

    async def store(self):
        if self.fails:
            self.fails -= 1
            raise StoreError("state: the disk is full")
        return self.opened


@asynccontextmanager
async def running(plugin, app):
    generator = plugin.lifespan(app)
    await anext(generator)
    try:
        yield
    finally:
        with pytest.raises(StopAsyncIteration):
            await anext(generator)


def finished(ident="x", *, tenant="default", arrived_at=1_700_000_000.0, **options):
    exchange = Exchange(b'{"model":"m"}', id=ident, tenant=tenant, model="m", arrived_at=arrived_at, **options)
    exchange.status = 200
    exchange.upstream = "u"
    exchange.ledger.prompt = 7
    exchange.ledger.output = 5
    exchange.ledger.calls.append(Call("u", "um", status=200, outcome="ok"))
    exchange.decide("test", "chose", size=3)
    exchange.notes.append({"text": "note"})
    return exchange


def request(tenant="default", query=None, **match_info):
    state = {"identity": SimpleNamespace(tenant=tenant)}
    return type("Request", (dict,), {"query": query or {}, "match_info": match_info})(state)


def routes(plugin):
    found = {}
    plugin.register_routes(lambda method, path, handler: found.update({f"{method} {path}": handler}))
    return found


async def show(plugin, ident, tenant="default"):
    return json.loads((await routes(plugin)["GET /v1/exchanges/{id}"](request(tenant, id=ident))).body)


async def listing(plugin, tenant="default", **query):
    return json.loads((await routes(plugin)["GET /v1/exchanges"](request(tenant, query))).body)


async def test_a_finished_exchange_is_shown_before_and_after_it_is_stored(store):
    plugin, app = RecordPlugin(RecordSettings()), App(store)
    async with running(plugin, app):
        await plugin.on_done(finished("x"))
        before = await show(plugin, "x")
    after = await show(plugin, "x")

    assert before == after
    assert [] == list(plugin.writer.waiting())
    assert (7, 5) == (after["ledger"]["prompt"], after["ledger"]["output"])
    (decision,) = after["decisions"]
    assert {"by": "test", "what": "chose", "detail": {"size": 3}, "at_s": decision["at_s"]} == decision
    assert decision["at_s"] > 0
    assert [{"text": "note"}] == after["notes"]
    assert "um" == after["calls"][0]["model"]
    assert "content" not in after


async def test_what_was_said_asleep_is_not_kept(store):
    plugin, app = RecordPlugin(RecordSettings(record_content=True)), App(store)
    async with running(plugin, app):
        exchange = finished("x")
        exchange.call_purpose = "sleep"
        await plugin.on_done(exchange)
        shown = await show(plugin, "x")

    assert "content" not in shown


async def test_another_tenants_exchange_does_not_exist(store):
    plugin, app = RecordPlugin(RecordSettings()), App(store)
    async with running(plugin, app):
        await plugin.on_done(finished("waits", tenant="a"))
        await plugin.writer.flush(store)
        await plugin.on_done(finished("stored", tenant="a"))
        for ident in ("waits", "stored", "unknown"):
            with pytest.raises(RequestError) as refused:
                await show(plugin, ident, tenant="b")

            assert 404 == refused.value.status
        with pytest.raises(RequestError):
            await listing(plugin, tenant="b", before="waits")

        assert [] == (await listing(plugin, tenant="b"))["data"]
        assert "waits" == (await show(plugin, "waits", tenant="a"))["id"]


async def test_lists_page_through_stored_and_waiting_exchanges_alike(store):
    plugin, app = RecordPlugin(RecordSettings()), App(store)
    async with running(plugin, app):
        for number in range(5):
            await plugin.on_done(finished(f"e{number}", arrived_at=1_700_000_000.0 + number))
            if number == 2:
                await plugin.writer.flush(store)
        first = await listing(plugin, limit="2")
        second = await listing(plugin, limit="2", before=first["last_id"])
        third = await listing(plugin, limit="2", before=second["last_id"])

    assert [["e4", "e3"], ["e2", "e1"], ["e0"]] == [[x["id"] for x in page["data"]] for page in (first, second, third)]
    assert [True, True, False] == [page["has_more"] for page in (first, second, third)]


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "", "1e9", "9" * 5000])
async def test_a_limit_that_is_none_is_refused(store, limit):
    plugin = RecordPlugin(RecordSettings())
    with pytest.raises(RequestError) as refused:
        await listing(plugin, limit=limit)

    assert (400, "limit") == (refused.value.status, refused.value.param)


async def test_a_store_that_cannot_be_read_is_503(store):
    plugin, app = RecordPlugin(RecordSettings()), App(store)
    async with running(plugin, app):
        app.fails = 1
        with pytest.raises(RequestError) as refused:
            await listing(plugin)

    assert 503 == refused.value.status


async def test_rows_wait_while_the_store_fails_and_are_written_when_it_recovers(store):
    plugin, app = RecordPlugin(RecordSettings(flush_s=0.001)), App(store)
    app.fails = 2
    async with running(plugin, app):
        await plugin.on_done(finished("x"))
        async with asyncio.timeout(10):
            while app.clock.next_due is None:
                await asyncio.sleep(0.002)

            assert ["x"] == [snapshot.id for snapshot in plugin.writer.waiting()]
            while not plugin.writer.opened.is_set():
                await app.clock.jump()
                await asyncio.sleep(0.002)
    found = await history.find(store, "default", "x")

    assert found is not None


async def test_a_full_batch_is_written_without_waiting(store):
    plugin, app = RecordPlugin(RecordSettings(flush_s=60)), App(store)
    async with running(plugin, app):
        for number in range(BATCH):
            await plugin.on_done(finished(f"e{number}"))
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await plugin.writer.opened.wait()

    assert BATCH == len(await history.page(store, "default", limit=BATCH + 1))


async def test_beyond_the_limit_the_oldest_are_dropped_and_counted():
    writer = Writer(1, limit=3)
    for number in range(5):
        writer.add(Snapshot.of(finished(f"e{number}")))

    assert 2 == writer.dropped
    assert ["e2", "e3", "e4"] == [snapshot.id for snapshot in writer.waiting()]


async def test_a_row_the_database_refuses_does_not_hold_up_the_others(store):
    writer = Writer(1)
    writer.add(Snapshot.of(finished("good")))
    writer.add(Snapshot.of(finished("bad"))._replace(status=None))
    writer.add(Snapshot.of(finished("also good")))
    await writer.flush(store)

    assert 1 == writer.dropped
    assert {"good", "also good"} == {row["id"] for row in await history.page(store, "default", limit=9)}


async def test_numbers_and_details_that_json_does_not_know_are_recorded_somehow(store):
    exchange = finished("x")
    exchange.model = "a\0b"
    exchange.ledger.prompt = 1 << 80
    exchange.ledger.slept = math.nan
    exchange.decide("test", "odd", thing=object(), endless=math.inf)
    circle = []
    circle.append(circle)
    worse = finished("y")
    worse.decide("test", "worse", circle=circle)
    writer = Writer(1)
    writer.add(Snapshot.of(exchange))
    writer.add(Snapshot.of(worse))
    await writer.flush(store)
    row, other = await history.find(store, "default", "x"), await history.find(store, "default", "y")

    assert ("ab", (1 << 63) - 1, 0) == (row["model"], row["prompt"], row["slept"])
    assert "odd" == row["record"]["decisions"][1]["what"]
    assert "unreadable" in other["record"]


async def test_retention_deletes_once_an_hour(store):
    clock, writer = ManualClock(1000.0), Writer(1)
    await history.write(store, [Snapshot.of(finished(f"e{at}", arrived_at=at)) for at in (0, 950, 4550)])

    async def opened():
        return store

    async def ids():
        return [row["id"] for row in await history.page(store, "default", limit=9)]

    async def until(expected):
        async with asyncio.timeout(10):
            while await ids() != expected:
                await asyncio.sleep(0.002)

    tasks = Tasks()
    tasks.spawn(keep_retention(writer, opened, clock, retention_s=100), "retention")
    writer.opened.set()
    await until(["e4550", "e950"])
    while clock.next_due is None:
        await asyncio.sleep(0.002)
    await clock.advance(3600)
    await until(["e4550"])
    await tasks.cancel()


def chunk(text, *, finish=None):
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return Chunk(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")


async def test_without_content_recording_the_bytes_are_left_alone():
    assert RecordPlugin(RecordSettings()).chunk_filter(finished()) is None


async def test_content_is_the_request_upstream_saw_and_the_reply_the_client_got(store):
    plugin = RecordPlugin(RecordSettings(record_content=True))
    exchange = finished("x")
    exchange.edit()["messages"] = [{"role": "user", "content": "hi"}]
    collect = plugin.chunk_filter(exchange)
    chunks = [chunk("Hel"), chunk("lo"), Chunk(b"data: [DONE]\n\n", is_last=True)]

    assert chunks == [collect(item) for item in chunks]
    await plugin.on_done(exchange)
    await plugin.writer.flush(store)
    content = history.content(await history.find(store, "default", "x"))

    assert {"model": "m", "messages": [{"role": "user", "content": "hi"}]} == content["request"]
    assert [{"group": 0, "kind": "content", "part": 0, "text": "Hello"}] == content["reply"]
    assert content["complete"]


async def test_content_beyond_the_limit_is_cut_and_says_so(store):
    plugin = RecordPlugin(RecordSettings(record_content=True, max_content_bytes=8))
    exchange = finished("x")
    collect = plugin.chunk_filter(exchange)
    for text in ("12345", "67890", "more"):
        collect(chunk(text))
    await plugin.on_done(exchange)
    await plugin.writer.flush(store)
    content = history.content(await history.find(store, "default", "x"))

    assert (None, "12345678", False) == (content["request"], content["reply"][0]["text"], content["complete"])


async def test_an_exchange_that_was_never_answered_keeps_its_request(store):
    plugin = RecordPlugin(RecordSettings(record_content=True))
    await plugin.on_done(finished("x"))
    await plugin.writer.flush(store)
    content = history.content(await history.find(store, "default", "x"))

    assert ({"model": "m"}, []) == (content["request"], content["reply"])


async def test_shutdown_writes_what_is_left(store):
    plugin, app = RecordPlugin(RecordSettings(flush_s=60)), App(store)
    async with running(plugin, app):
        await plugin.on_done(finished("x"))

    assert await history.find(store, "default", "x") is not None
    assert 0 == len(app.tasks)


async def test_shutdown_says_what_is_lost(store, caplog):
    plugin, app = RecordPlugin(RecordSettings(flush_s=60)), App(store)
    app.fails = 99
    async with running(plugin, app):
        await plugin.on_done(finished("x"))

    assert 1 == plugin.writer.dropped
    assert "1 exchanges are not recorded" in caplog.text


def test_a_killed_process_leaves_a_readable_store_with_whole_rows_only(tmp_path):
    state = tmp_path / "state.db"
    script = textwrap.dedent("""
        import asyncio, itertools, sys
        from predawn.plugins import Call, Exchange
        from predawn.plugins.record.snapshot import Snapshot
        from predawn.plugins.record.writer import Writer
        from predawn.proxy.store import open_store

        async def main():
            store, writer = await open_store(sys.argv[1]), Writer(1)
            for number in itertools.count():
                exchange = Exchange(b"{}", id=f"e{number}", model="m", arrived_at=float(number))
                exchange.ledger.output = number
                exchange.ledger.calls.append(Call("u", "m", output_tokens=number))
                writer.add(Snapshot.of(exchange))
                if number % 20 == 19:
                    await writer.flush(store)
                    print(number, flush=True)

        asyncio.run(main())
    """)
    process = subprocess.Popen([sys.executable, "-c", script, str(state)], stdout=subprocess.PIPE, text=True)
    try:
        for _ in range(8):
            written = int(process.stdout.readline())
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()

    async def rows():
        store = await open_store(str(state))
        try:
            page = await history.page(store, "default", limit=100_000)
            return [await history.find(store, "default", row["id"]) for row in page]
        finally:
            await store.aclose()

    found = asyncio.run(rows())

    assert len(found) > written
    assert 0 == len(found) % 20
    assert all(row["record"]["calls"][0]["output_tokens"] == row["output"] for row in found)


def test_what_verifiers_said_is_counted_and_none_of_the_answer_is_kept():
    exchange = finished()
    exchange.verdicts += [Verdict("pass", verifier="sums")] * 2
    exchange.verdicts.append(Verdict("violation", "my secret is 4", "it is 5", verifier="sums"))

    record = Snapshot.of(exchange).record

    assert '"checks":{"sums":{"pass":2,"violation":1}}' in record
    assert "secret" not in record


def test_a_snapshot_has_the_columns_of_the_table_in_their_order():
    assert [column.name for column in exchanges.c] == list(Snapshot._fields)


def test_each_figure_of_the_ledger_stands_in_a_column_or_in_the_record_and_in_its_own():
    exchange = finished()
    names = [field.name for field in fields(Ledger) if field.name not in ("calls", "is_answer_booked")]
    for number, name in enumerate(names, start=2):
        setattr(exchange.ledger, name, number)

    snapshot = Snapshot.of(exchange)
    shown = {**snapshot._asdict(), **json.loads(snapshot.record)["ledger"]}

    assert {name: number for number, name in enumerate(names, start=2)} == {name: shown[name] for name in names}


@pytest.mark.parametrize("odd", [-1, math.nan, math.inf, -math.inf, 1 << 64, -(1 << 64)])
@pytest.mark.parametrize("name", ["prompt", "slept", "spend_usd"])
def test_a_number_that_the_store_would_not_take_is_the_nearest_that_it_does(name, odd):
    exchange = finished()
    setattr(exchange.ledger, name, odd)

    kept = getattr(Snapshot.of(exchange), name)

    assert kept == ((1 << 63) - 1 if odd == 1 << 64 else 0)
