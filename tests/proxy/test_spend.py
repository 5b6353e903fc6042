import asyncio
import threading
from collections import defaultdict
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from predawn.plugins.testing.clock import ManualClock
from predawn.proxy import store as store_module
from predawn.proxy.keys import NANO, Digester, Key, create_key
from predawn.proxy.settings import PriceSettings
from predawn.proxy.spend import DAY_S, Usage, UsageBook, cost_usd, read_usage, to_nano
from predawn.proxy.store import Store, StoreError, open_store

PRICE = PriceSettings(input_usd_per_mtok=3, output_usd_per_mtok=15, cached_input_usd_per_mtok=0.3)
ONE = Usage(1, 10, 4, 20, 1000)


async def make_key(store: Store, tenant: str = "acme") -> str:
    draft = Key(id="", name="n", tenant=tenant, nano_usd_per_day=1 << 40)
    key, _ = await create_key(store, Digester(b"a secret of the tests"), draft)
    return key.id


def test_tokens_cost_their_price():
    assert cost_usd(PRICE, 1_000_000, 0, 0) == 3
    assert cost_usd(PRICE, 1_000_000, 1_000_000, 0) == 0.3
    assert cost_usd(PRICE, 1_000_000, 500_000, 1_000_000) == 16.65
    assert cost_usd(PriceSettings(input_usd_per_mtok=3), 1_000_000, 1_000_000, 0) == 3
    assert cost_usd(None, 1_000_000, 0, 1_000_000) == 0


def test_more_cached_tokens_than_there_are_cost_no_less_than_nothing():
    assert cost_usd(PRICE, 10, 1000, 0) == pytest.approx(10 * 0.3 / 1e6)


@pytest.mark.parametrize(
    ("usd", "nano"),
    [
        (0.0, 0),
        (-1.0, 0),
        (float("nan"), 0),
        (1.0, 1_000_000_000),
        (0.1 + 0.2, 300_000_000),
        (1e-10, 1),
        (float("inf"), 10**15),
        (1e300, 10**15),
    ],
)
def test_dollars_become_whole_billionths_never_too_few(usd: float, nano: int):
    assert to_nano(usd) == nano


@pytest.mark.parametrize("count", [-1, -(1 << 70), 0])
def test_an_upstream_that_claims_less_than_nothing_gets_nothing_back(count: int):
    assert Usage.of(count, count, count, -5.0) == Usage(1, 0, 0, 0, 0)


async def test_an_upstream_that_claims_too_much_does_not_block_the_store(store: Store, clock: ManualClock):
    book = UsageBook(clock)
    for _ in range(100):
        book.book("acme", "k", Usage.of(1 << 70, 1 << 70, 1 << 70, 1e30))
    await book.sync(store, reads_spend=True)

    assert (await read_usage(store))[0].usage.prompt_tokens == 100 << 40


async def test_what_stands_on_tabs_is_in_the_store_after_a_sync(store: Store, clock: ManualClock):
    book = UsageBook(clock)
    for key_id in ("k", "other", "k"):
        tab = book.tab_of("acme", key_id)
        tab.add_request(10, 4, 2, 0.25, clock.now())
    for _ in range(2):  # the second brings nothing more
        await book.sync(store, reads_spend=False)

    assert {row.key_id: row.usage for row in await read_usage(store)} == {
        "k": Usage(2, 20, 8, 4, NANO // 2),
        "other": Usage(1, 10, 4, 2, NANO // 4),
    }


async def test_a_tab_goes_to_the_day_on_which_its_requests_ended(store: Store, clock: ManualClock):
    book = UsageBook(clock)
    tab = book.tab_of("acme", "k")
    midnight = (clock.now() // DAY_S + 1) * DAY_S
    for at in (midnight - 0.5, midnight - 0.1, midnight, midnight + 0.1, midnight + 0.2):
        tab.add_request(1, 0, 0, 0.0, at)
    await book.sync(store, reads_spend=False)
    tab.add_request(1, 0, 0, 0.0, midnight + 2)
    await book.sync(store, reads_spend=False)

    rows = sorted(await read_usage(store), key=lambda row: row.day)
    assert [row.usage.requests for row in rows] == [2, 4]
    assert [row.day for row in rows] == [date(1970, 1, 1) + timedelta(int(midnight // DAY_S) - n) for n in (1, 0)]


def test_a_clock_that_is_put_right_is_believed_from_the_next_collection_on(clock: ManualClock):
    book = UsageBook(clock)
    tab = book.tab_of("acme", "k")
    tab.add_request(1, 0, 0, 0.25, clock.now() + DAY_S)
    book.collect_all()
    tab.add_request(1, 0, 0, 0.5, clock.now())
    book.collect_all()

    assert book.spent_today("k") == to_nano(0.5)


def test_money_on_a_tab_counts_as_spent_once_it_is_collected(clock: ManualClock):
    book = UsageBook(clock)
    tab = book.tab_of("acme", "k")
    tab.add_request(1, 0, 0, 0.25, clock.now() - DAY_S)
    tab.add_request(1, 0, 0, 0.5, clock.now())
    book.collect_all()
    book.collect_all()

    assert book.spent_today("k") == NANO // 2


@given(st.lists(st.tuples(*[st.integers(0, 1 << 70)] * 3, st.floats(allow_nan=True))))
def test_a_tab_counts_as_the_book_does(requests: list[tuple[int, int, int, float]]):
    clock = ManualClock()
    one, other = UsageBook(clock), UsageBook(clock)
    tab = one.tab_of("acme", "k")
    for used in requests:
        tab.add_request(*used, clock.now())
        other.book("acme", "k", Usage.of(*used))
    one.collect_all()

    assert one._booked == other._booked


async def test_what_was_booked_is_in_the_store_after_a_sync(store: Store, clock: ManualClock):
    book = UsageBook(clock)
    for _ in range(3):
        book.book("acme", "k", ONE)
    await book.sync(store, reads_spend=False)
    await book.sync(store, reads_spend=False)

    (row,) = await read_usage(store)
    assert (row.day, row.tenant, row.key_id) == (date(2023, 11, 14), "acme", "k")
    assert row.usage == Usage(3, 30, 12, 60, 3000)


async def test_spend_is_known_before_and_after_it_is_stored(store: Store, clock: ManualClock):
    key = await make_key(store)
    book = UsageBook(clock)
    seen = [book.spent_today(key)]
    book.book("acme", key, ONE)
    seen.append(book.spent_today(key))
    await book.sync(store, reads_spend=True)
    seen.append(book.spent_today(key))
    book.book("acme", key, ONE)
    seen.append(book.spent_today(key))

    assert seen == [0, 1000, 1000, 2000]


async def test_processes_see_each_others_spend_at_the_next_sync(store: Store, clock: ManualClock):
    key = await make_key(store)
    one, other = UsageBook(clock), UsageBook(clock)
    one.book("acme", key, ONE)
    other.book("acme", key, ONE)
    await one.sync(store, reads_spend=True)
    await other.sync(store, reads_spend=True)
    await one.sync(store, reads_spend=True)

    assert (one.spent_today(key), other.spent_today(key)) == (2000, 2000)


async def test_processes_that_sync_at_once_lose_nothing(store: Store, clock: ManualClock):
    books = [UsageBook(clock) for _ in range(5)]
    for number, book in enumerate(books):
        for key in ("a", "b", "c") if number % 2 else ("c", "b", "a"):
            book.book("acme", key, ONE)
    await asyncio.gather(*(book.sync(store, reads_spend=False) for book in books))

    assert [row.usage.requests for row in await read_usage(store)] == [5, 5, 5]


async def test_spend_booked_during_a_sync_is_not_lost(store: Store, clock: ManualClock):
    key = await make_key(store)
    book = UsageBook(clock)
    book.book("acme", key, ONE)
    syncing = asyncio.get_running_loop().create_task(book.sync(store, reads_spend=True))
    seen = set()
    while not syncing.done():
        await asyncio.sleep(0)
        seen.add(book.spent_today(key))
    book.book("acme", key, ONE)
    await book.sync(store, reads_spend=True)

    assert seen == {1000}
    assert (await read_usage(store))[0].usage.requests == 2


async def test_a_new_day_begins_at_midnight_utc(store: Store):
    clock = ManualClock(start=DAY_S * 20_000 - 1)
    key = await make_key(store)
    book = UsageBook(clock)
    book.book("acme", key, ONE)
    left = book.seconds_left_today()
    await clock.advance(1)
    seen = [book.spent_today(key)]
    book.book("acme", key, ONE)
    await book.sync(store, reads_spend=True)
    seen.append(book.spent_today(key))

    assert (left, seen) == (1, [0, 1000])
    assert [row.day for row in await read_usage(store)] == [date(2024, 10, 3), date(2024, 10, 4)]


async def test_what_cannot_be_stored_waits_and_still_counts(tmp_path: Path, clock: ManualClock):
    store = await open_store(str(tmp_path / "state.db"))
    key = await make_key(store)
    book = UsageBook(clock)
    book.book("acme", key, ONE)
    async with store.begin() as connection:
        await connection.execute(text("ALTER TABLE usage RENAME TO away"))
    with pytest.raises(StoreError):
        await book.sync(store, reads_spend=True)
    book.book("acme", key, ONE)
    waiting = book.spent_today(key)
    async with store.begin() as connection:
        await connection.execute(text("ALTER TABLE away RENAME TO usage"))
    await book.sync(store, reads_spend=True)
    rows = await read_usage(store)
    await store.aclose()

    assert waiting == book.spent_today(key) == 2000
    assert [row.usage for row in rows] == [Usage(2, 20, 8, 40, 2000)]


async def test_a_cancelled_sync_loses_nothing(state: str, clock: ManualClock, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store_module, "BUSY_TIMEOUT_S", 0.1)
    store = await open_store(state)
    book = UsageBook(clock)
    async with store.begin() as connection:  # SQLite's only writer: the sync has to wait
        await connection.execute(text("UPDATE usage SET requests = 0"))
        if store.dialect == "postgresql":
            await connection.execute(text("LOCK TABLE usage"))
        book.book("acme", "k", ONE)
        syncing = asyncio.get_running_loop().create_task(book.sync(store, reads_spend=False))
        for _ in range(20):
            await asyncio.sleep(0)
        syncing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await syncing
    await book.sync(store, reads_spend=False)
    rows = await read_usage(store)
    await store.aclose()

    assert [row.usage for row in rows] == [ONE]


async def test_a_sync_that_is_cancelled_and_yet_done_is_counted_once(tmp_path: Path, clock: ManualClock):
    store = await open_store(str(tmp_path / "state.db"))
    key = await make_key(store)
    book = UsageBook(clock)
    asked, may_go_on = threading.Event(), threading.Event()

    def unless(_: Connection) -> bool:
        asked.set()
        may_go_on.wait()
        return False

    book.book("acme", key, ONE)
    syncing = asyncio.get_running_loop().create_task(book.sync(store, reads_spend=True, unless=unless))
    await asyncio.to_thread(asked.wait)
    syncing.cancel()
    book.book("acme", key, ONE)
    may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await syncing
    spent = [book.spent_today(key)]
    await book.sync(store, reads_spend=True)
    spent.append(book.spent_today(key))
    rows = await read_usage(store)
    await store.aclose()

    assert spent == [2000, 2000]
    assert [row.usage for row in rows] == [Usage(2, 20, 8, 40, 2000)]


async def test_nothing_is_stored_unless_the_store_is_as_it_was(store: Store, clock: ManualClock):
    book = UsageBook(clock)
    book.book("acme", "k", ONE)
    done = [await book.sync(store, reads_spend=True, unless=lambda _: True)]
    before = await read_usage(store)
    done.append(await book.sync(store, reads_spend=True, unless=lambda _: False))

    assert (before, done) == ([], [False, True])
    assert [row.usage for row in await read_usage(store)] == [ONE]


async def test_where_nothing_was_used_nothing_is_asked_but_what_must_be(store: Store, clock: ManualClock):
    book = UsageBook(clock)
    async with store.begin() as connection:
        await connection.execute(text("ALTER TABLE usage RENAME TO away"))

    assert await book.sync(store, reads_spend=False)
    assert await book.sync(store, reads_spend=False, unless=lambda _: False)
    with pytest.raises(StoreError):
        await book.sync(store, reads_spend=True)


TENANTS = st.sampled_from(["acme", "Acme", "globex", "", "acme' OR '1'='1", "a\u00e4", "default"])
BOOKINGS = st.lists(
    st.tuples(TENANTS, st.sampled_from(["", "k1", "k2"]), st.integers(0, 1000), st.integers(0, 10**12)), max_size=20
)


@settings(max_examples=15)
@given(BOOKINGS)
def test_tenants_never_see_each_others_usage(bookings: list[tuple[str, str, int, int]]):
    async def check(state: str) -> None:
        store = await open_store(state)
        book = UsageBook(ManualClock())
        expected: defaultdict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for number, (tenant, key, tokens, nano) in enumerate(bookings):
            book.book(tenant, key, Usage(1, tokens, 0, tokens, nano))
            expected[tenant][key] += nano
            if number % 7 == 6:
                await book.sync(store, reads_spend=True)
        await book.sync(store, reads_spend=True)
        seen = {
            tenant: {row.key_id: row.usage.spend_nano_usd for row in await read_usage(store, tenant=tenant)}
            for tenant in expected
        }
        owners = {
            row.tenant for tenant in expected for row in await read_usage(store, tenant=tenant) if row.tenant != tenant
        }
        await store.aclose()

        assert seen == expected
        assert owners == set()

    with TemporaryDirectory() as folder:
        asyncio.run(check(f"{folder}/state.db"))
