"""The fake over HTTP: a real server for plugin authors, load tests and acceptance tests.

Besides the APIs it answers `GET /counts`, and `GET /last-request` with the headers and the body as they came.
"""

from __future__ import annotations

import asyncio
import base64
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web
from multidict import CIMultiDict

from predawn.proxy.clock import Clock, SystemClock
from predawn.proxy.upstreams.scripted.script import Answer, Script
from predawn.proxy.upstreams.scripted.stage import Choose, Counts, Opened, Received, Stage, as_script

if TYPE_CHECKING:
    from predawn.proxy.upstreams.scripted.plan import Plan

MAX_BODY_BYTES = 1 << 30


class ScriptedServer:
    """A running server. `requests` are what it received, `counts` what it did."""

    def __init__(self, stage: Stage, clock: Clock) -> None:
        self.stage = stage
        self.url = ""
        """`http://127.0.0.1:PORT`, once it listens."""
        self._clock = clock
        self._last: web.Request | None = None
        self._last_body = b""
        self._runner: web.AppRunner | None = None

    @property
    def base_url(self) -> str:
        """What a client's `base_url` has to be."""
        return f"{self.url}/v1"

    @property
    def counts(self) -> Counts:
        return self.stage.counts

    @property
    def requests(self) -> list[Received]:
        """What arrived, oldest first."""
        return self.stage.requests

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 is any free one. Raises `OSError` if the port is taken."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_get("/counts", self._counts)
        app.router.add_get("/last-request", self._last_request)
        app.router.add_route("*", "/{path:.*}", self._perform)
        # a client that goes away cancels its handler: that is how a reply learns that it was cut
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, backlog=1024)
        await site.start()
        bound = self._runner.addresses[0][1]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{bound}"

    async def aclose(self) -> None:
        """Stop listening and drop what is still being answered."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _counts(self, _request: web.Request) -> web.Response:
        return web.json_response(self.counts.as_dict())

    async def _last_request(self, _request: web.Request) -> web.Response:
        """Headers in their order and spelling; the body as base64, and as text where it is UTF-8."""
        if (last := self._last) is None:
            return web.json_response({"error": "no request came yet"}, status=404)
        told: dict[str, Any] = {
            "method": last.method,
            "path": last.raw_path,
            "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in last.raw_headers],
            "body": base64.b64encode(self._last_body).decode(),
            "text": self._last_body.decode("utf-8", "replace"),
        }
        return web.json_response(told)

    async def _perform(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self._last, self._last_body = request, body
        path = request.raw_path.removeprefix("/v1")
        plan = self.stage.receive(Received(request.method, path, request.headers, body))
        opened = self.stage.open(plan)
        performance = Performance(request, plan, opened, self._clock)
        try:
            return await performance.run()
        except ConnectionError:
            return web.Response()  # the client went away; nobody sees this
        finally:
            opened.close(finished=False)


class Performance:
    """One plan on one connection."""

    def __init__(self, request: web.Request, plan: Plan, opened: Opened, clock: Clock) -> None:
        self._request = request
        self._plan = plan
        self._opened = opened
        self._clock = clock

    async def run(self) -> web.StreamResponse:
        plan = self._plan
        if plan.begin == "stall":
            await asyncio.Event().wait()  # until the client goes away
        if plan.begin == "refuse":
            return self._abort()
        if plan.framing == "until_close" or plan.claimed_length is not None:
            return await self._run_raw()
        return await self._run_framed()

    async def _run_framed(self) -> web.StreamResponse:
        """Framing that aiohttp writes: chunks, or a content-length that is true."""
        plan = self._plan
        if len(plan.steps) == 1 and plan.end == "clean" and plan.framing == "length" and not plan.gzip:
            return await self._run_at_once()
        response = web.StreamResponse(status=plan.status, headers=plan.headers)
        if plan.gzip:
            response.headers["Content-Encoding"] = "gzip"
        elif plan.framing == "length" and plan.end == "clean":
            response.content_length = plan.size
        if not plan.steps or plan.end != "clean":
            await response.prepare(self._request)
        for wait_s, data in self._pieces():
            await self._pause(wait_s)
            if data:
                if not response.prepared:
                    await response.prepare(self._request)
                await response.write(data)
        if plan.end == "stall":
            await asyncio.Event().wait()
        self._opened.close(finished=True)
        if plan.end == "abort":
            return self._abort()
        await response.write_eof()
        return response

    async def _run_at_once(self) -> web.StreamResponse:
        step = self._plan.steps[0]
        await self._pause(step.wait_s)
        self._opened.sent(step)
        response = web.Response(body=step.data, status=self._plan.status, headers=self._plan.headers)
        await response.prepare(self._request)
        await response.write_eof()
        self._opened.close(finished=True)
        return response

    async def _run_raw(self) -> web.StreamResponse:
        """Framing that no honest server writes: headers and body by hand, and the connection's end as the end."""
        transport = self._request.transport
        if transport is None:
            raise ConnectionResetError
        transport.write(self._head())
        for wait_s, data in self._pieces():
            await self._pause(wait_s)
            if transport.is_closing():
                raise ConnectionResetError
            transport.write(data)
        if self._plan.end == "stall":
            await asyncio.Event().wait()
        self._opened.close(finished=True)
        if self._plan.end == "abort":
            return self._abort()
        transport.close()
        return web.Response()  # goes nowhere: the connection is closed

    def _head(self) -> bytes:
        plan = self._plan
        headers: CIMultiDict[str] = CIMultiDict(plan.headers)
        if plan.framing == "until_close":
            headers["Connection"] = "close"
        else:
            headers["Content-Length"] = str(plan.claimed_length)
        if plan.gzip:
            headers["Content-Encoding"] = "gzip"
        version = "1.0" if plan.framing == "until_close" else "1.1"
        lines = [f"HTTP/{version} {plan.status} Scripted", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"

    def _pieces(self) -> Iterator[tuple[float, bytes]]:
        """When and what to write, step by step; a token without bytes only takes its time."""
        squeeze = zlib.compressobj(wbits=31) if self._plan.gzip else None
        for step in self._plan.steps:
            data = squeeze.compress(step.data) + squeeze.flush(zlib.Z_SYNC_FLUSH) if squeeze else step.data
            yield step.wait_s, data
            self._opened.sent(step)
        if squeeze and self._plan.end == "clean":
            yield 0.0, squeeze.flush(zlib.Z_FINISH)

    async def _pause(self, seconds: float) -> None:
        if seconds > 0:
            await self._clock.sleep(seconds)

    def _abort(self) -> web.StreamResponse:
        """Drop the connection without a farewell."""
        self._opened.close(finished=True)
        if (transport := self._request.transport) is not None:
            transport.abort()
        return web.Response()


@asynccontextmanager
async def scripted_server(
    script: Script | Answer | str | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    clock: Clock | None = None,
    choose: Choose | None = None,
    keep: int = 1000,
) -> AsyncIterator[ScriptedServer]:
    """Run a scripted provider on a free port: `async with scripted_server(Script(text="hi")) as server:`."""
    server = ScriptedServer(Stage(as_script(script), choose=choose, keep=keep), clock or SystemClock())
    await server.start(host, port)
    try:
        yield server
    finally:
        await server.aclose()
