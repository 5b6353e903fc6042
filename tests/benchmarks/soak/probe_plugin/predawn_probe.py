"""`GET /v1/probe`: the tasks that live in the server now, by name, and the objects that the garbage collector sees."""

import asyncio
import gc
from collections import Counter

from aiohttp import web

from predawn.plugins import Plugin, hookimpl
from predawn.proxy.hookspecs import RegisterRoute


async def probe(request: web.Request) -> web.Response:
    names = Counter(
        task.get_name() if task.get_name().startswith("predawn.") else _origin(task) for task in asyncio.all_tasks()
    )
    return web.json_response({"tasks": sum(names.values()), "names": names, "objects": len(gc.get_objects())})


def _origin(task: "asyncio.Task[object]") -> str:
    """What a task without a name of its own runs."""
    return getattr(task.get_coro(), "__qualname__", "unknown")


class Probe(Plugin):
    @hookimpl
    def register_routes(self, register: RegisterRoute) -> None:
        register("GET", "/v1/probe", probe)
