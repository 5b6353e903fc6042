"""Upstreams that tell how busy they are keep sleep away while they are."""

from aiohttp import web
from aiohttp.test_utils import TestServer
from tests.acceptance.house import until

from predawn.plugins.sleep.load import watch_load
from predawn.plugins.sleep.places import Places
from predawn.plugins.testing import ManualClock
from predawn.proxy.settings import Settings
from predawn.proxy.tasks import Tasks

SETTINGS = Settings.model_validate(
    {"upstreams": [{"name": "vllm", "base_url": "http://h/v1"}], "models": [{"name": "m", "upstream": "vllm"}]}
)


class Night:
    """Hears what upstreams tell."""

    def __init__(self):
        self.heard = []

    def told(self, upstream, metrics):
        self.heard.append((upstream, metrics))


async def test_the_pages_of_upstreams_are_read_again_and_again():
    async def metrics(_):
        return web.Response(text="vllm:num_requests_waiting 3\n")

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    night, clock, tasks = Night(), ManualClock(), Tasks()
    async with TestServer(app) as server:
        urls = {"gone": "http://127.0.0.1:9/metrics", "vllm": str(server.make_url("/metrics"))}
        tasks.spawn(watch_load(urls, night, Places(SETTINGS), clock), "load")
        await until(lambda: clock.next_due is not None)
        await clock.jump()
        await until(lambda: len(night.heard) == 2)
        await tasks.cancel()

    assert night.heard == [("vllm", "vllm:num_requests_waiting 3\n")] * 2


async def test_where_no_page_is_named_none_is_read():
    await watch_load({}, Night(), Places(SETTINGS), ManualClock())
