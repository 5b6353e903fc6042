"""What a reload keeps, replaces and closes."""

from contextlib import asynccontextmanager

import pytest

from predawn.plugins import Plugin, hookimpl
from predawn.plugins.testing import ManualClock
from predawn.proxy.access import Access
from predawn.proxy.exchange import Exchange, RequestError
from predawn.proxy.generation import Generation, Shared
from predawn.proxy.loading import register
from predawn.proxy.metrics import Metrics, new_registry
from predawn.proxy.settings import Settings
from predawn.proxy.tasks import Tasks

UPSTREAMS = [{"name": "a", "base_url": "http://a/v1"}, {"name": "b", "base_url": "http://b/v1"}]
MODELS = [{"name": "m", "upstream": "a"}]


class Fake:
    """An upstream that knows whether it is open."""

    routes = frozenset({"chat"})

    def __init__(self, settings, _clock):
        self.settings = settings
        self.name = settings.name
        self.is_open = self.is_closed = False

    async def open(self):
        if self.settings.headers.get("fail"):
            raise OSError("cannot be opened")
        self.is_open = True

    async def aclose(self):
        assert not self.is_closed, "closed twice"
        self.is_open, self.is_closed = False, True


class Lives(Plugin):
    log = ()

    @hookimpl
    async def lifespan(self, app):
        type(self).log = (*self.log, "open")
        yield
        type(self).log = (*self.log, "close")


@pytest.fixture
async def shared():
    Lives.log = ()
    tasks, clock = Tasks(), ManualClock()

    async def no_store():
        raise AssertionError("nobody needs the store")

    def plugins(settings):
        return register([(entry.name, Lives(Lives.settings_type())) for entry in settings.plugins])

    access = await Access.open(Settings(access={"keys": "off"}), no_store, clock, tasks)
    yield Shared(clock, tasks, Metrics(new_registry()), access, no_store, plugins, Fake)
    await tasks.cancel()


def settings(**parts):
    return Settings.model_validate({"upstreams": UPSTREAMS, "models": MODELS, "plugins": ["lives"], **parts})


@asynccontextmanager
async def started(shared, **parts):
    generation = await Generation.start(settings(**parts), shared)
    try:
        yield generation
    finally:
        await generation.aclose()


async def test_a_reload_keeps_what_did_not_change_and_closes_what_is_gone(shared):
    async with started(shared) as first:
        second = await Generation.start(settings(upstreams=UPSTREAMS[:1]), shared, first)
        second.take_over(first)
        await first.retire(0, shared.clock)

        assert first.stations["a"] is second.stations["a"]
        assert (True, False) == (first.stations["a"].upstream.is_open, first.stations["b"].upstream.is_open)
        assert ("open",) == Lives.log

        await second.aclose()

    assert (False, ("open", "close")) == (first.stations["a"].upstream.is_open, Lives.log)


async def test_changed_plugins_are_opened_before_the_old_ones_are_closed(shared):
    async with started(shared) as first:
        second = await Generation.start(settings(plugins=["lives", "more"]), shared, first)
        second.take_over(first)

        assert ("open", "open", "open") == Lives.log

        await first.retire(0, shared.clock)
        await second.aclose()

    assert ("open", "open", "open", "close", "close", "close") == Lives.log


async def test_a_reload_that_fails_leaves_everything_open_and_nothing_new(shared):
    broken = [*UPSTREAMS, {"name": "c", "base_url": "http://c", "headers": {"fail": "x"}}]
    async with started(shared) as first:
        with pytest.raises(OSError, match="cannot be opened"):
            await Generation.start(settings(upstreams=broken), shared, first)

        assert [True, True] == [station.upstream.is_open for station in first.stations.values()]
        assert [1, 1] == [station.shared_by for station in first.stations.values()]
        assert ("open",) == Lives.log


async def test_a_new_generation_that_is_given_up_takes_nothing_with_it(shared):
    async with started(shared) as first:
        second = await Generation.start(settings(), shared, first)
        await second.aclose()

        assert [True, True] == [station.upstream.is_open for station in first.stations.values()]
        assert ("open",) == Lives.log


async def test_plugins_that_are_kept_send_by_the_new_models(shared):
    async with started(shared) as first:
        send = first.in_force.send
        second = await Generation.start(settings(models=[{"name": "new", "upstream": "b"}]), shared, first)

        with pytest.raises(RequestError, match="new"):
            await send(Exchange(b'{"model":"new"}', model="new"))

        second.take_over(first)
        with pytest.raises(AttributeError):  # the fake was asked, which cannot send
            await send(Exchange(b'{"model":"new"}', model="new"))

        await first.retire(0, shared.clock)
        await second.aclose()
