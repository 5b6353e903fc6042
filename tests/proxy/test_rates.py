import logging
import os
import secrets

import pytest

from predawn.plugins.testing.clock import ManualClock
from predawn.proxy.clock import SystemClock
from predawn.proxy.rates import PAUSE_S, Rates
from predawn.proxy.store_errors import StoreError

NEW_WINDOW = 1_700_000_040.0  # a multiple of 60


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    """A clock that also sets the time of the `limits` library, which takes no other."""
    clock = ManualClock(start=NEW_WINDOW)
    monkeypatch.setattr("time.time", clock.now)
    return clock


async def test_a_window_has_room_for_its_limit_and_no_more(clock: ManualClock):
    rates = Rates.open(None, clock)

    assert [await rates.take("requests", "k", 3, 1) for _ in range(4)] == [True, True, True, False]
    assert (await rates.look("requests", "k", 3)).remaining == 0


async def test_keys_and_kinds_have_windows_of_their_own(clock: ManualClock):
    rates = Rates.open(None, clock)

    assert await rates.take("requests", "k1", 1, 1)
    assert await rates.take("requests", "k2", 1, 1)
    assert await rates.take("tokens", "k1", 1, 1)
    assert not await rates.take("requests", "k1", 1, 1)


async def test_room_comes_back_little_by_little(clock: ManualClock):
    rates = Rates.open(None, clock)
    assert await rates.take("tokens", "k", 600, 600)
    left = []
    for _ in range(4):
        await clock.advance(30)
        left.append((await rates.look("tokens", "k", 600)).remaining)

    assert left == [0, 0, 300, 600]


async def test_what_has_no_room_is_not_counted(clock: ManualClock):
    rates = Rates.open(None, clock)

    assert not await rates.take("tokens", "k", 100, 101)
    assert await rates.take("tokens", "k", 100, 100)


async def test_a_redis_that_is_away_refuses_nobody_and_is_left_alone_for_a_while(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
):
    pytest.importorskip("redis")
    rates = Rates.open("redis://:sesame@127.0.0.1:1/0", clock)
    with caplog.at_level(logging.WARNING):
        taken = [await rates.take("requests", "k", 1, 1) for _ in range(3)]
        looked = await rates.look("requests", "k", 1)
        await clock.advance(PAUSE_S)
        taken.append(await rates.take("requests", "k", 1, 1))
    await rates.aclose()

    assert (taken, looked) == ([True] * 4, (1, 0.0))
    assert len(caplog.records) == 2
    assert "sesame" not in caplog.text


@pytest.mark.parametrize(
    "url", ["localhost:6379", "http://me:sesame@host", "memcached://host", "redis://:sesame@host:port/x"]
)
def test_a_url_that_is_not_redis_is_refused_without_repeating_it(url: str, clock: ManualClock):
    with pytest.raises(StoreError, match=r"access\.limits_url: ") as caught:
        Rates.open(url, clock)

    assert "sesame" not in str(caught.value)


@pytest.mark.skipif("PREDAWN_TEST_REDIS" not in os.environ, reason="PREDAWN_TEST_REDIS is not set")
async def test_servers_share_the_windows_of_a_redis():
    pytest.importorskip("redis")
    url, key = os.environ["PREDAWN_TEST_REDIS"], secrets.token_hex(8)
    one, other = Rates.open(url, SystemClock()), Rates.open(url, SystemClock())
    taken = [await rates.take("tokens", key, 30, 10) for rates in (one, other, one, other)]
    left = await other.look("tokens", key, 30)
    await one.aclose()
    await other.aclose()

    assert taken == [True, True, True, False]
    assert left.remaining == 0
    assert 0 < left.reset_s <= 60
