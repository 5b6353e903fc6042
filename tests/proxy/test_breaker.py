import pytest

from predawn.plugins.testing import ManualClock
from predawn.proxy.breaker import Breaker
from predawn.proxy.settings import BreakerSettings


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def breaker(clock):
    return Breaker("u", BreakerSettings(failures=2, cool_s=10), clock)


def test_failures_in_a_row_open_it(breaker):
    breaker.failed()
    breaker.succeeded()
    breaker.failed()
    assert breaker.available

    breaker.failed()

    assert ("open", False) == (breaker.state, breaker.available)


async def test_after_the_pause_one_request_probes_and_the_others_wait(breaker, clock):
    breaker.failed()
    breaker.failed()
    await clock.advance(10)
    assert breaker.available

    breaker.begin()

    assert ("half_open", False) == (breaker.state, breaker.available)


@pytest.mark.parametrize(("verdict", "state"), [("succeeded", "closed"), ("failed", "open"), ("abandoned", "open")])
async def test_the_probe_decides(breaker, clock, verdict, state):
    breaker.failed()
    breaker.failed()
    await clock.advance(10)
    breaker.begin()

    getattr(breaker, verdict)()

    assert state == breaker.state


async def test_an_abandoned_probe_gives_its_place_to_the_next_at_once(breaker, clock):
    breaker.failed()
    breaker.failed()
    await clock.advance(10)
    breaker.begin()

    breaker.abandoned()

    assert breaker.available
