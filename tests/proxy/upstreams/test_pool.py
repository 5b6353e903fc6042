"""The connections to one upstream: how many, how long, and who gets them."""

import asyncio

import pytest
import uvloop
from tests.proxy.upstreams.raw import ASKED, OK, Heard, pool_to, provider

from predawn.plugins.testing.clock import ManualClock
from predawn.proxy.tasks import Tasks
from predawn.proxy.upstreams.base import UpstreamError


@pytest.fixture
async def far():
    async with provider() as made:
        yield made


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
async def pool(far, clock):
    async with pool_to(far.port, clock=clock, limit=2) as made:
        yield made


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


async def waiting(pool, count):
    """Tasks that wait for a connection, in this order."""
    tasks = []
    for _ in range(count):
        tasks.append(Tasks().spawn(pool.acquire(), "test"))
        await settle()
    return tasks


async def test_the_connection_used_last_is_used_first(pool):
    first, second = await pool.acquire(), await pool.acquire()
    pool.give_back(first)
    pool.give_back(second)

    assert (second, first, None) == (pool.take(), pool.take(), pool.take())


async def test_connections_that_nobody_uses_are_closed(pool, clock):
    first, second = await pool.acquire(), await pool.acquire()
    pool.give_back(first)
    pool.give_back(second)
    await clock.advance(59)
    pool.sweep()
    before = (first.is_closed, second.is_closed)
    await clock.advance(1)
    pool.sweep()

    assert ((False, False), (True, True), None) == (before, (first.is_closed, second.is_closed), pool.take())


@pytest.mark.parametrize(("told", "kept_s"), [(b"timeout=5, max=100", 3.5), (b"timeout=0", 0), (b"timeout=900", 60)])
async def test_a_connection_is_closed_before_the_upstream_would_do_so(pool, far, clock, told, kept_s):
    heard = Heard()
    connection = await pool.acquire()
    connection.ask(heard, ASKED, b"{}")
    peer = await far.peer()
    await peer.asked()
    peer.say(OK.replace(b"\r\n\r\n", b"\r\nKeep-Alive: " + told + b"\r\n\r\n"))
    await heard.over()
    await clock.advance(max(kept_s - 0.1, 0))
    pool.sweep()
    before = connection.is_closed
    await clock.advance(0.2)
    pool.sweep()

    assert (kept_s == 0, True) == (before, connection.is_closed)


async def test_a_connection_in_use_is_not_closed_for_its_age(pool, clock):
    connection = await pool.acquire()
    await clock.advance(3600)
    pool.sweep()

    assert connection.is_usable


async def test_one_the_upstream_closed_is_not_handed_out(pool, far):
    connection = await pool.acquire()
    pool.give_back(connection)
    peer = await far.peer()
    peer.writer.close()
    await peer.hung_up()
    await settle()
    fresh = await pool.acquire()

    assert (True, True) == (connection.is_closed, fresh is not connection)


async def test_no_more_connections_than_allowed(pool, far):
    held = [await pool.acquire() for _ in range(2)]
    (late,) = await waiting(pool, 1)

    assert (False, 2) == (late.done(), len(pool.connections))
    pool.give_back(held[0])
    assert held[0] is await late


async def test_those_who_wait_are_served_in_order(pool):
    held = [await pool.acquire() for _ in range(2)]
    first, second, third = await waiting(pool, 3)
    pool.give_back(held[0])
    await settle()
    after_one = (first.done(), second.done(), third.done())
    pool.give_back(held[1])
    await settle()

    assert ((True, False, False), (True, True, False)) == (after_one, (first.done(), second.done(), third.done()))
    assert held == [await first, await second]
    third.cancel()


async def test_a_place_that_comes_free_goes_to_who_waits(pool):
    held = [await pool.acquire() for _ in range(2)]
    (late,) = await waiting(pool, 1)
    held[0].abort()
    connection = await late

    assert (True, False) == (connection.is_usable, connection in held)
    assert 2 == len([one for one in pool.connections if not one.is_closed])


async def test_whoever_stops_waiting_takes_nothing_along(pool):
    held = [await pool.acquire() for _ in range(2)]
    first, second = await waiting(pool, 2)
    first.cancel()
    await settle()
    pool.give_back(held[0])

    assert held[0] is await second


@pytest.mark.parametrize("gift", ["connection", "place"])
async def test_what_was_handed_to_one_who_leaves_at_that_moment_goes_on(pool, gift):
    held = [await pool.acquire() for _ in range(2)]
    first, second = await waiting(pool, 2)
    if gift == "connection":
        pool.give_back(held[0])
    else:
        held[0].abort()
    first.cancel()  # after it was given, before it could wake
    connection = await second

    assert (True, True) == (connection.is_usable, first.cancelled())
    third = (await waiting(pool, 1))[0]
    pool.give_back(connection)
    assert connection is await third


async def test_a_gift_that_breaks_on_the_way_leaves_its_place(pool):
    held = [await pool.acquire() for _ in range(2)]
    (late,) = await waiting(pool, 1)
    pool.give_back(held[0])
    held[0].abort()  # before `late` could wake
    connection = await late

    assert connection.is_usable
    connection.abort()
    held[1].abort()
    again = [await pool.acquire() for _ in range(2)]
    assert all(one.is_usable for one in again)


async def test_one_whose_gift_broke_takes_what_came_free_meanwhile(pool):
    held = [await pool.acquire() for _ in range(2)]
    (late,) = await waiting(pool, 1)
    other = Tasks().spawn(pool.acquire(), "test")  # takes the place of the first
    pool._loop.call_soon(pool.give_back, held[1])
    pool.give_back(held[0])
    held[0].abort()  # before `late` could wake
    await settle()

    assert (True, True) == (late.done(), (await other).is_usable)
    assert held[1] is late.result()


async def test_waiting_ends_in_time(far):
    async with pool_to(far.port, limit=1, first_byte_s=0.02) as pool:
        connection = await pool.acquire()
        with pytest.raises(UpstreamError, match="all 1 are in use") as caught:
            await pool.acquire()
        pool.give_back(connection)

        assert ("connect", True) == (caught.value.reason, caught.value.sent_nothing)
        assert connection is await pool.acquire()


async def test_nobody_listening_is_a_connect_error_that_keeps_no_place():
    async with provider() as gone:
        pass
    async with pool_to(gone.port, limit=1) as pool:
        for _ in range(3):
            with pytest.raises(UpstreamError, match="Connection refused") as caught:
                await pool.acquire()

            assert ("connect", True) == (caught.value.reason, caught.value.sent_nothing)


@pytest.mark.parametrize("name", ["no-such-host.invalid", "two..dots", "x" * 70 + ".invalid"])
async def test_a_name_that_is_not_known_is_a_connect_error(name):
    async with pool_to(1) as pool:
        pool._origin = type(pool._origin)(name, 1, b"")
        with pytest.raises(UpstreamError) as caught:
            await pool.acquire()

    assert "connect" == caught.value.reason


async def test_no_connection_in_time_is_a_connect_error(far):
    tls = __import__("ssl").create_default_context()  # the far end never answers the handshake
    async with pool_to(far.port, limit=1, connect_s=0.02) as pool:
        pool._origin = type(pool._origin)("127.0.0.1", far.port, b"", tls)
        for _ in range(2):
            with pytest.raises(UpstreamError, match=r"no connection within 0\.02 s") as caught:
                await pool.acquire()

            assert ("connect", []) == (caught.value.reason, pool._addresses)  # next time it is looked for again


@pytest.mark.parametrize("turns", range(12))
async def test_connecting_may_be_given_up_at_any_moment(far, turns):
    """Neither its place nor anything else of it is kept."""
    async with pool_to(far.port, limit=1) as pool:
        task = Tasks().spawn(pool.acquire(), "test")
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        try:
            pool.give_back(await task)
        except asyncio.CancelledError:
            pass

        async with asyncio.timeout(5):
            connection = await pool.acquire()
        await settle()
        assert (True, (connection,)) == (connection.is_usable, pool.connections)


def test_a_connection_given_up_while_it_is_made_is_forgotten_on_the_servers_own_loop():
    """uvloop tells nobody of the end of a connection whose making was cancelled."""

    async def given_up(turns):
        async with provider() as far, pool_to(far.port) as pool:
            task = Tasks().spawn(pool.acquire(), "test")
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if not task.cancelled():
                task.result().abort()
            await settle()
            return pool.connections

    assert [()] * 12 == [uvloop.run(given_up(turns)) for turns in range(12)]


async def test_the_second_address_is_tried_when_the_first_does_not_answer(far):
    async with pool_to(far.port) as pool:
        dead = (2, 1, 6, "", ("192.0.2.1", 9))  # nobody is there (RFC 5737)
        alive = (2, 1, 6, "", ("127.0.0.1", far.port))
        pool._addresses, pool._resolved_at = [dead, alive], pool.now()
        async with asyncio.timeout(3):
            connection = await pool.acquire()

        assert connection.is_usable


async def test_the_machines_behind_one_name_share_the_connections(far):
    async with provider() as other, pool_to(far.port) as pool:
        pool._addresses = [(2, 1, 6, "", ("127.0.0.1", one.port)) for one in (far, other)]
        pool._resolved_at = pool.now()
        for _ in range(4):
            await pool.acquire()
        for one in (far, other, far, other):
            await one.peer()

        assert far.peers.empty()
        assert other.peers.empty()


async def test_closing_ends_all_that_is_on_its_way(far):
    async with pool_to(far.port, limit=2) as pool:
        heard = Heard()
        busy, idle = await pool.acquire(), await pool.acquire()
        pool.give_back(idle)
        busy.ask(heard, ASKED, b"{}")
        taken = pool.take()
        (late,) = await waiting(pool, 1)
        await pool.aclose()

        assert (["lost"], ()) == (heard.told, pool.connections)
        assert (idle, True, True) == (taken, busy.is_closed, idle.is_closed)
        with pytest.raises(UpstreamError):
            await late
        with pytest.raises(UpstreamError, match="it is being closed"):
            await pool.acquire()


async def test_the_timer_runs_only_while_there_are_connections(far):
    async with pool_to(far.port, first_byte_s=0.04) as pool:
        before = pool._timer
        heard = Heard()
        connection = await pool.acquire()
        connection.ask(heard, ASKED, b"{}")
        during = pool._timer
        await heard.over()
        while pool._timer is not None:
            await asyncio.sleep(0.001)

        assert (None, True) == (before, during is not None)
        assert ("timeout_ttft", True) == heard.outcome


async def test_a_receiver_that_fails_does_not_stop_the_timer(far):
    class Wrong(Heard):
        def on_lost(self, error):
            super().on_lost(error)
            raise ZeroDivisionError

    seen = []
    heard = Wrong()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context["exception"]))
    async with pool_to(far.port, first_byte_s=0.04) as pool:
        (await pool.acquire()).ask(heard, ASKED, b"{}")
        await heard.over()

        assert (1, ZeroDivisionError, True) == (len(seen), type(seen[0]), pool._timer is not None)


async def test_many_requests_share_few_connections(far):
    async def serve():
        while True:
            peer = await far.peers.get()
            tasks.append(Tasks().spawn(answer(peer), "test"))

    async def answer(peer):
        while True:
            await peer.asked()
            peer.say(OK)

    async def ask(pool):
        heard = Heard()
        (await pool.acquire()).ask(heard, ASKED, b"{}")
        await heard.over()
        return heard.told

    tasks = []
    tasks.append(Tasks().spawn(serve(), "test"))
    async with pool_to(far.port, limit=3) as pool:
        told = await asyncio.gather(*(ask(pool) for _ in range(50)))

        assert [["head", "body", "end"]] * 50 == told
        assert len(pool.connections) <= 3
        assert "0 busy" in repr(pool)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
