import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from predawn.plugins.testing.clock import ManualClock
from predawn.proxy import store as store_module
from predawn.proxy.access import ANYONE, Access, Identity, Lease
from predawn.proxy.exchange import RequestError
from predawn.proxy.keys import NANO, Digester, Key, create_key, revoke_key
from predawn.proxy.rates import Rates, Window
from predawn.proxy.secret import find_or_make_secret
from predawn.proxy.settings import PriceSettings, Settings
from predawn.proxy.spend import DAY_S, read_usage
from predawn.proxy.store import Store, StoreError, open_store
from predawn.proxy.tasks import Tasks

HERE, ELSEWHERE = "127.0.0.1", "203.0.113.9"
PRICE = PriceSettings(input_usd_per_mtok=1, output_usd_per_mtok=10)


class House:
    """A server's state with keys, and doors to it."""

    def __init__(self, state: str, clock: ManualClock, tasks: Tasks) -> None:
        self.state = state
        self.clock = clock
        self.tasks = tasks
        self.store: Store | None = None
        self.opened = 0
        self.doors: list[Access] = []

    def settings(self, **access: Any) -> Settings:
        return Settings.model_validate({"state": self.state, "access": {"secret": "a secret of the tests", **access}})

    async def the_store(self) -> Store:
        if self.store is None:
            self.opened += 1
            self.store = await open_store(self.state)
        return self.store

    async def make(self, **limits: Any) -> tuple[Key, str]:
        draft = Key(id="", **{"name": "n", "created_at": self.clock.now(), **limits})
        return await create_key(await self.the_store(), Digester(find_or_make_secret(self.settings())), draft)

    async def door(self, **access: Any) -> Access:
        door = await Access.open(self.settings(**access), self.the_store, self.clock, self.tasks)
        self.doors.append(door)
        return door

    async def identity(self, **limits: Any) -> tuple[Access, Identity]:
        """A door, and someone with a new key in front of it."""
        _, presented = await self.make(**limits)
        door = await self.door()
        return door, door.identify(bearer(presented), ELSEWHERE)

    async def close(self) -> None:
        for door in self.doors:
            await door.aclose()
        if self.store is not None:
            await self.store.aclose()


def book(door: Access, identity: Identity, prompt: int, cached: int, output: int, spend_usd: float) -> None:
    """A request without a lease has ended."""
    if (tab := door.tab_of(identity)) is not None:
        tab.add_request(prompt, cached, output, spend_usd, door._clock.now())


@pytest.fixture
async def house(state: str, clock: ManualClock, tasks: Tasks) -> AsyncIterator[House]:
    house = House(state, clock, tasks)
    yield house
    await house.close()


class SlowRates(Rates):
    """Windows that have to be waited for, as Redis' have."""

    async def take(self, *args: Any) -> bool:
        await asyncio.sleep(0)
        return await super().take(*args)

    async def look(self, *args: Any) -> Window:
        await asyncio.sleep(0)
        return await super().look(*args)


def bearer(key: str) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict({"authorization": f"Bearer {key}"}))


def counting(calls: list[str], method: Callable[..., Any]) -> Callable[..., Any]:
    """The same method, which notes that it was called."""

    def call(*args: Any) -> Any:
        calls.append(method.__name__)
        return method(*args)

    return call


def refused(call: Callable[..., object], *args: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        call(*args)
    return caught.value


async def refused_later(call: Awaitable[object]) -> RequestError:
    with pytest.raises(RequestError) as caught:
        await call
    return caught.value


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what other threads do on behalf of a task; the test's own timeout ends it."""
    while not condition():
        await asyncio.sleep(0.001)


class TestIdentify:
    async def test_a_key_is_found_in_each_of_the_three_headers(self, house: House):
        key, presented = await house.make(tenant="acme")
        door = await house.door()
        headers = [
            {"Authorization": f"Bearer {presented}"},
            {"authorization": f"bearer  {presented} "},
            {"x-api-key": presented},
            {"Api-Key": presented},
            {"Authorization": "Basic eA==", "x-api-key": presented},
        ]
        found = [door.identify(CIMultiDict(each), ELSEWHERE) for each in headers]

        assert {identity.tenant for identity in found} == {"acme"}
        assert [identity.key for identity in found] == [key] * 5
        assert found[0].key_id == key.id

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Authorization": ""},
            {"Authorization": "Bearer "},
            {"Authorization": "Bearer pd-unknown"},
            {"Authorization": "Basic eA=="},
            {"x-api-key": ""},
            {"x-api-key": "pd-\udcff\u0000\u2603"},
            {"x-api-key": "x" * 100_000},
        ],
    )
    async def test_everything_else_is_401(self, house: House, headers: dict[str, str]):
        await house.make()
        door = await house.door()
        error = refused(door.identify, CIMultiDict(headers), HERE)

        assert (error.status, error.type, error.code) == (401, "authentication_error", "invalid_api_key")
        assert error.headers == {"www-authenticate": "Bearer"}
        assert not any(len(value) > 8 and value in error.message for value in headers.values())

    async def test_a_key_almost_right_is_401(self, house: House):
        _, presented = await house.make()
        door = await house.door()

        for wrong in (presented[:-1], presented + "A", presented.swapcase(), presented[:-1] + "\u0410"):
            assert refused(door.identify, bearer(wrong), HERE).status == 401

    async def test_a_key_ends_when_it_expires(self, house: House):
        _, presented = await house.make(expires_at=house.clock.now() + 60)
        door = await house.door()
        door.identify(bearer(presented), ELSEWHERE)
        await house.clock.advance(60)

        assert "expired" in refused(door.identify, bearer(presented), ELSEWHERE).message

    async def test_without_keys_only_this_machine_is_served(self, house: House):
        door = await house.door()

        assert door.identify(CIMultiDict(), HERE) is ANYONE
        assert door.identify(bearer("sk-whatever-the-client-needs"), HERE) is ANYONE
        error = refused(door.identify, CIMultiDict(), ELSEWHERE)
        assert (error.status, error.code) == (401, "invalid_api_key")
        assert "predawn keys create" in error.message
        assert "only this machine" in door.describe()

    async def test_once_there_is_a_key_this_machine_needs_one_too(self, house: House):
        key, _ = await house.make()
        await revoke_key(await house.the_store(), key.id, house.clock.now())
        door = await house.door()

        assert refused(door.identify, CIMultiDict(), HERE).status == 401
        assert door.has_keys
        assert "required; 1 are known" in door.describe()

    async def test_required_keys_keep_everybody_out_until_there_is_one(self, house: House):
        door = await house.door(keys="required")

        assert "predawn keys create" in refused(door.identify, CIMultiDict(), HERE).message
        assert "nobody is served" in door.describe()

    async def test_keys_that_are_off_let_everybody_in(self, house: House):
        await house.make()
        door = await house.door(keys="off")

        assert door.identify(bearer("pd-unknown"), ELSEWHERE) is ANYONE
        assert "off" in door.describe()

    async def test_keys_made_with_another_secret_are_refused(self, house: House):
        _, presented = await house.make()
        door = await house.door(secret="another secret of the tests")

        assert refused(door.identify, bearer(presented), HERE).status == 401

    async def test_a_key_opens_only_its_models(self, house: House):
        door, identity = await house.identity(models=frozenset({"small", "tiny"}))
        door.check_model(identity, "tiny")
        error = refused(door.check_model, identity, "large")

        assert (error.status, error.type, error.code) == (403, "permission_error", "model_not_allowed")
        assert "small, tiny" in error.message

    async def test_a_key_without_a_list_opens_all_models(self, house: House):
        door, identity = await house.identity()

        door.check_model(identity, "anything")
        door.check_model(ANYONE, "anything")


class TestKeepingUp:
    async def test_a_key_made_later_works_within_two_seconds(self, house: House):
        door = await house.door()
        _, presented = await house.make()
        await house.clock.advance(2)
        await until(lambda: len(door._keyring) == 1)

        assert door.identify(bearer(presented), ELSEWHERE).key is not None
        assert refused(door.identify, CIMultiDict(), HERE).status == 401

    async def test_a_key_revoked_later_is_refused_within_two_seconds(self, house: House):
        key, presented = await house.make()
        door = await house.door()
        door.identify(bearer(presented), ELSEWHERE)
        await revoke_key(await house.the_store(), key.id, house.clock.now())
        await house.clock.advance(2)
        await until(lambda: door._keyring._counts.revoked == 1)

        assert "revoked" in refused(door.identify, bearer(presented), ELSEWHERE).message

    async def test_a_reload_brings_in_new_keys_and_new_settings(self, house: House):
        door = await house.door()
        _, presented = await house.make()
        await door.reload()
        known = door.identify(bearer(presented), ELSEWHERE)
        await door.reload(house.settings(keys="off"))

        assert known.key is not None
        assert door.identify(CIMultiDict(), ELSEWHERE) is ANYONE

    async def test_a_reload_that_fails_changes_nothing(self, house: House):
        _, presented = await house.make()
        door = await house.door()
        with pytest.raises(StoreError):
            await door.reload(house.settings(secret="short"))
        with pytest.raises(StoreError):
            await door.reload(house.settings(limits_url="http://nonsense"))

        assert door.identify(bearer(presented), ELSEWHERE).key is not None

    async def test_a_reload_whose_usage_cannot_be_written_opens_no_door(self, house: House):
        from sqlalchemy import text

        _, presented = await house.make()
        door = await house.door()
        book(door, door.identify(bearer(presented), ELSEWHERE), 1, 0, 2, 0.0)
        store = await house.the_store()
        async with store.begin() as connection:
            await connection.execute(text("ALTER TABLE usage RENAME TO away"))
        with pytest.raises(StoreError):
            await door.reload(house.settings(keys="off"))
        refusal = refused(door.identify, CIMultiDict(), ELSEWHERE)
        async with store.begin() as connection:
            await connection.execute(text("ALTER TABLE away RENAME TO usage"))
        await door.reload(house.settings(keys="off"))

        assert refusal.status == 401
        assert door.identify(CIMultiDict(), ELSEWHERE) is ANYONE
        assert [row.usage.requests for row in await read_usage(store)] == [1]

    async def test_a_state_that_fails_keeps_the_keys_and_says_so_once(
        self, house: House, caplog: pytest.LogCaptureFixture
    ):
        from sqlalchemy import text

        _, presented = await house.make()
        door = await house.door()
        store = await house.the_store()
        async with store.begin() as connection:
            await connection.execute(text("ALTER TABLE keys RENAME TO away"))
        for _ in range(3):
            await house.clock.advance(1)
            await until(lambda: house.clock.next_due is not None)
        async with store.begin() as connection:
            await connection.execute(text("ALTER TABLE away RENAME TO keys"))
        await house.clock.advance(1)
        await until(lambda: house.clock.next_due is not None)

        assert door.identify(bearer(presented), ELSEWHERE).key is not None
        assert [record.message[:27] for record in caplog.records if record.levelname == "WARNING"] == [
            "keys stay as they were, and"
        ]

    async def test_a_key_is_refused_though_usage_cannot_be_written(self, house: House):
        from sqlalchemy import text

        key, presented = await house.make()
        door = await house.door()
        store = await house.the_store()
        book(door, door.identify(bearer(presented), ELSEWHERE), 1, 0, 2, 0.0)
        await revoke_key(store, key.id, house.clock.now())
        async with store.begin() as connection:
            await connection.execute(text("ALTER TABLE usage RENAME TO away"))
        await house.clock.advance(1)
        await until(lambda: house.clock.next_due is not None)
        refusal = refused(door.identify, bearer(presented), ELSEWHERE)
        async with store.begin() as connection:
            await connection.execute(text("ALTER TABLE away RENAME TO usage"))
        await house.clock.advance(1)
        await until(lambda: house.clock.next_due is not None)

        assert "revoked" in refusal.message
        assert [row.usage.requests for row in await read_usage(store)] == [1]

    async def test_usage_is_booked_from_when_there_is_a_store(self, house: House):
        door = await house.door()
        tab, epoch = door.tab_of(ANYONE), door.epoch
        await house.the_store()
        await house.clock.advance(1)
        await until(lambda: house.clock.next_due is not None)

        assert (tab is None) is (door.epoch > epoch)
        assert door.tab_of(ANYONE) is not None

    async def test_the_epoch_changes_with_the_keys_and_only_with_them(self, house: House):
        door = await house.door()
        await house.make()
        epochs = [door.epoch]
        for _ in range(3):
            await house.clock.advance(1)
            await until(lambda: house.clock.next_due is not None)
            epochs.append(door.epoch)

        assert [epoch - epochs[0] for epoch in epochs] == [0, 1, 1, 1]

    async def test_a_second_costs_one_visit_to_the_store(self, house: House, monkeypatch: pytest.MonkeyPatch):
        trips: list[str] = []
        monkeypatch.setattr(Store, "visit", counting(trips, Store.visit))
        monkeypatch.setattr(Store, "read", counting(trips, Store.read))
        monkeypatch.setattr(Store, "begin", counting(trips, Store.begin))
        door, identity = await house.identity(nano_usd_per_day=NANO)
        trips.clear()
        for spend_usd in (0.0, 0.25, 0.5):
            if spend_usd:
                book(door, identity, 1, 0, 2, spend_usd)
            await house.clock.advance(1)
            await until(lambda: house.clock.next_due is not None)

        assert trips == ["visit"] * 3
        assert door._book.spent_today(identity.key_id or "") == 3 * NANO // 4


class TestLimits:
    async def test_a_key_without_limits_waits_for_nothing(self, house: House):
        door, identity = await house.identity()
        admitting = door.reserve(identity, PRICE, 1 << 50, 1 << 50)
        with pytest.raises(StopIteration) as done:
            admitting.send(None)
        lease: Lease = done.value.value
        lease.settle(1, 0, 1, 0.5)

        assert not identity.is_limited
        assert not identity.needs_usage
        assert lease.headers == {}

    async def test_requests_per_minute(self, house: House):
        door, identity = await house.identity(requests_per_minute=2)
        leases = [await door.reserve(identity, None, 10, 10) for _ in range(2)]
        error = await refused_later(door.reserve(identity, None, 10, 10))

        assert [lease.headers["x-ratelimit-remaining-requests"] for lease in leases] == ["1", "0"]
        assert (error.status, error.type, error.code) == (429, "rate_limit_error", "rate_limit_exceeded")
        assert 1 <= int(error.headers["retry-after"]) <= 60
        assert error.headers["x-ratelimit-limit-requests"] == "2"
        assert error.headers["x-ratelimit-remaining-requests"] == "0"
        assert error.headers["x-ratelimit-reset-requests"].endswith("s")

    async def test_tokens_per_minute_are_held_before_and_counted_after(self, house: House):
        door, identity = await house.identity(tokens_per_minute=100)
        first = await door.reserve(identity, None, 10, 50)
        error = await refused_later(door.reserve(identity, None, 10, 50))
        first.settle(10, 0, 20, 0.0)
        second = await door.reserve(identity, None, 10, 50)

        assert error.code == "rate_limit_exceeded"
        assert error.headers["x-ratelimit-remaining-tokens"] == "40"
        assert second.headers["x-ratelimit-limit-tokens"] == "100"
        assert second.headers["x-ratelimit-remaining-tokens"] == "10"  # 100 - 30 used - 60 held
        assert identity.needs_usage

    async def test_more_tokens_used_than_the_window_has_fill_it(self, house: House):
        door, identity = await house.identity(tokens_per_minute=100)
        (await door.reserve(identity, None, 10, None)).settle(10, 0, 5000, 0.0)
        error = await refused_later(door.reserve(identity, None, 1, None))

        assert error.headers["x-ratelimit-remaining-tokens"] == "0"

    async def test_a_request_larger_than_the_limit_is_told_not_to_come_back(self, house: House):
        door, identity = await house.identity(tokens_per_minute=100)
        error = await refused_later(door.reserve(identity, None, 90, 11))

        assert error.headers["x-should-retry"] == "false"
        assert "never" in error.message

    async def test_a_request_refused_for_its_tokens_is_not_counted_as_one(self, house: House):
        door, identity = await house.identity(tokens_per_minute=100, requests_per_minute=1)
        await refused_later(door.reserve(identity, None, 90, 11))

        await door.reserve(identity, None, 10, 11)

    async def test_concurrency(self, house: House):
        door, identity = await house.identity(concurrency=2)
        first = await door.reserve(identity, None, 10, 10)
        await door.reserve(identity, None, 10, 10)
        error = await refused_later(door.reserve(identity, None, 10, 10))
        first.release()

        assert (error.status, error.code, error.headers["retry-after"]) == (429, "rate_limit_exceeded", "1")
        assert (await door.reserve(identity, None, 10, 10)).key is identity.key

    async def test_spend_is_held_before_and_settled_after(self, house: House):
        door, identity = await house.identity(nano_usd_per_day=NANO // 1000)  # $0.001
        first = await door.reserve(identity, PRICE, 0, 60)  # $0.0006
        error = await refused_later(door.reserve(identity, PRICE, 0, 60))
        first.settle(0, 0, 30, 0.0003)
        second = await door.reserve(identity, PRICE, 0, 70)
        second.release()

        assert (error.status, error.type, error.code) == (429, "rate_limit_error", "budget_exceeded")
        assert "$0.0004 left" in error.message
        assert "may cost $0.0006" in error.message
        assert error.headers["x-should-retry"] == "false"
        assert int(error.headers["retry-after"]) == DAY_S - house.clock.now() % DAY_S
        assert identity.needs_usage

    async def test_a_budget_opens_again_at_midnight(self, house: House):
        door, identity = await house.identity(nano_usd_per_day=NANO // 1000)
        (await door.reserve(identity, PRICE, 0, 100)).settle(0, 0, 100, 0.001)
        error = await refused_later(door.reserve(identity, PRICE, 0, 1))
        await house.clock.advance(int(error.headers["retry-after"]))

        await door.reserve(identity, PRICE, 0, 100)

    async def test_an_answer_of_unknown_length_is_held_as_a_long_one(self, house: House):
        door, identity = await house.identity(nano_usd_per_day=NANO // 1000)

        assert "may cost $0.04096" in (await refused_later(door.reserve(identity, PRICE, 0, None))).message

    async def test_a_model_without_a_price_costs_nothing(self, house: House):
        door, identity = await house.identity(nano_usd_per_day=1)

        await door.reserve(identity, None, 1 << 20, None)

    async def test_a_refused_request_holds_nothing(self, house: House):
        door, identity = await house.identity(requests_per_minute=1, concurrency=9, nano_usd_per_day=NANO)
        (await door.reserve(identity, PRICE, 1, 1)).release()
        for _ in range(20):
            await refused_later(door.reserve(identity, PRICE, 1, 1))

        account = door._accounts[identity.key_id or ""]
        assert (account.requests, account.nano_usd, account.tokens) == (0, 0, 0)

    async def test_a_request_cancelled_while_it_is_admitted_holds_nothing(self, house: House):
        door, identity = await house.identity(requests_per_minute=9, concurrency=9, tokens_per_minute=99)
        door._rates = SlowRates.open(None, house.clock)
        turns = 0
        while True:  # cancelled at each of its awaits in turn
            admitting = asyncio.get_running_loop().create_task(door.reserve(identity, PRICE, 1, 1))
            for _ in range(turns):
                await asyncio.sleep(0)
            if not admitting.cancel():
                admitting.result().release()
                break
            await asyncio.wait([admitting])
            assert admitting.cancelled()
            turns += 1
        assert turns > 3

        account = door._accounts[identity.key_id or ""]
        assert (account.requests, account.nano_usd, account.tokens) == (0, 0, 0)

    async def test_a_lease_ends_once(self, house: House):
        door, identity = await house.identity(concurrency=2, nano_usd_per_day=NANO)
        other = await door.reserve(identity, PRICE, 1, 1)
        lease = await door.reserve(identity, PRICE, 1, 1)
        lease.settle(1, 0, 1, 0.25)
        lease.settle(1, 0, 1, 0.25)
        lease.release()

        assert door._accounts[identity.key_id or ""].requests == 1
        assert door._book.spent_today(identity.key_id or "") == NANO // 4
        assert "open" in repr(other)
        assert "ended" in repr(lease)

    async def test_many_at_once_get_no_more_than_the_limit(self, house: House):
        door, identity = await house.identity(tokens_per_minute=100)
        door._rates = SlowRates.open(None, house.clock)
        admitted = await asyncio.gather(
            *(door.reserve(identity, None, 10, 10) for _ in range(20)), return_exceptions=True
        )

        assert sum(isinstance(lease, Lease) for lease in admitted) == 5


class TestUsage:
    async def test_usage_reaches_the_store_within_a_second_or_two(self, house: House):
        door, identity = await house.identity(tenant="acme")
        (await door.reserve(identity, PRICE, 1, 1)).settle(10, 5, 20, 0.5)
        book(door, identity, 1, 0, 2, 0.25)
        await house.clock.advance(1)
        await until(lambda: house.clock.next_due is not None)

        (row,) = await read_usage(await house.the_store(), tenant="acme")
        assert (row.key_id, row.usage.requests, row.usage.prompt_tokens) == (identity.key_id, 2, 11)
        assert row.usage.spend_nano_usd == 3 * NANO // 4

    async def test_usage_is_written_at_the_end(self, house: House):
        door, identity = await house.identity()
        book(door, identity, 1, 0, 2, 0.25)
        await door.aclose()

        (row,) = await read_usage(await house.the_store())
        assert row.usage.output_tokens == 2

    async def test_what_a_key_spent_before_a_restart_counts(self, house: House):
        door, identity = await house.identity(nano_usd_per_day=NANO)
        (await door.reserve(identity, PRICE, 1, 1)).settle(1, 0, 1, 0.9)
        await door.aclose()
        door = await house.door()

        assert (await refused_later(door.reserve(identity, PRICE, 0, 20_000))).code == "budget_exceeded"
        await door.reserve(identity, PRICE, 0, 10_000)

    async def test_a_request_without_a_key_is_booked_to_its_tenant(self, house: House):
        door = await house.door(keys="required")
        await house.make()
        await door.reload()
        book(door, ANYONE, 1, 0, 2, 0.0)
        await door.aclose()

        (row,) = await read_usage(await house.the_store())
        assert (row.tenant, row.key_id, row.usage.output_tokens) == ("default", "", 2)


class TestSqlite:
    """What is special about a state that is a file: there may be none."""

    @pytest.fixture
    def state(self, tmp_path: Path) -> str:
        return str(tmp_path / "new" / "state.db")

    async def test_a_server_without_keys_makes_no_state(self, house: House):
        door = await house.door()
        book(door, ANYONE, 1, 0, 2, 0.0)
        await house.clock.advance(5)
        await until(lambda: house.clock.next_due is not None)
        await door.aclose()

        assert house.opened == 0
        assert not Path(house.state).parent.exists()

    async def test_a_locked_file_keeps_no_revoked_key_alive(self, house: House, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(store_module, "BUSY_TIMEOUT_S", 0.2)
        key, presented = await house.make()
        door = await house.door()
        book(door, door.identify(bearer(presented), ELSEWHERE), 1, 0, 2, 0.0)
        await revoke_key(await house.the_store(), key.id, house.clock.now())
        with closing(sqlite3.connect(house.state, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await house.clock.advance(1)
            await until(lambda: door._keyring._counts.revoked == 1)
            is_waiting = house.clock.next_due is None
            refusal = refused(door.identify, bearer(presented), ELSEWHERE)
            await until(lambda: house.clock.next_due is not None)
        await house.clock.advance(1)
        await until(lambda: house.clock.next_due is not None)

        assert is_waiting
        assert "revoked" in refusal.message
        assert [row.usage.requests for row in await read_usage(await house.the_store())] == [1]

    async def test_closing_in_the_middle_of_a_write_counts_everything_once(self, house: House):
        door, identity = await house.identity()
        book(door, identity, 1, 0, 2, 0.0)
        with closing(sqlite3.connect(house.state, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await house.clock.advance(1)
            await until(lambda: not door._book._booked)  # it is on its way, and waits for the file
            book(door, identity, 1, 0, 2, 0.0)
            closing_door = asyncio.get_running_loop().create_task(door.aclose())
            await asyncio.sleep(0)
            is_waiting = not closing_door.done()
        await closing_door

        assert is_waiting
        assert [row.usage.requests for row in await read_usage(await house.the_store())] == [2]

    async def test_an_idle_server_writes_nothing(self, house: House):
        await house.identity(nano_usd_per_day=NANO)
        log = Path(f"{house.state}-wal")
        before = log.stat()
        for _ in range(3):
            await house.clock.advance(1)
            await until(lambda: house.clock.next_due is not None)

        assert (log.stat().st_mtime_ns, log.stat().st_size) == (before.st_mtime_ns, before.st_size)

    async def test_keys_without_their_secret_stop_the_start(self, house: House, monkeypatch: pytest.MonkeyPatch):
        await house.make()
        monkeypatch.delenv("PREDAWN_SECRET", raising=False)

        with pytest.raises(StoreError, match="secret beside it is gone: restore it"):
            await house.door(secret=None)

    async def test_the_secret_beside_the_state_serves(self, house: House, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.delenv("PREDAWN_SECRET", raising=False)
        settings = house.settings(secret=None)
        _, presented = await create_key(
            await house.the_store(), Digester(find_or_make_secret(settings)), Key(id="", name="n")
        )
        door = await house.door(secret=None)

        assert door.identify(bearer(presented), ELSEWHERE).key is not None

    def test_a_server_without_keys_imports_neither_sqlalchemy_nor_limits(self, state: str):
        code = """
import asyncio, sys
from predawn.proxy.access import Access
from predawn.proxy.clock import SystemClock
from predawn.proxy.settings import Settings
from predawn.proxy.store import open_store
from predawn.proxy.tasks import Tasks
async def main():
    settings = Settings(state=sys.argv[1])
    tasks = Tasks()
    access = await Access.open(settings, lambda: open_store(settings.state), SystemClock(), tasks)
    access.identify({}, "127.0.0.1")
    await access.aclose()
asyncio.run(main())
print([name for name in ("sqlalchemy", "alembic", "limits", "sqlite3", "aiosqlite") if name in sys.modules])
"""
        env = {**os.environ, "PREDAWN_SECRET": ""}
        done = subprocess.run([sys.executable, "-c", code, state], capture_output=True, text=True, check=True, env=env)

        assert done.stdout == "[]\n"
