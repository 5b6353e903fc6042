"""A whole server on free ports of this machine, for tests that bring a client of their own."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from predawn.proxy.upstreams.scripted import Answer, Script

if TYPE_CHECKING:
    from predawn.proxy.clock import Clock
    from predawn.proxy.server import Server
    from predawn.proxy.upstreams.scripted.server import ScriptedServer
    from predawn.proxy.upstreams.scripted.stage import Choose

SCRIPTED: Mapping[str, Any] = {
    "upstreams": [{"name": "scripted", "kind": "scripted"}],
    "models": [{"name": "*", "upstream": "scripted"}],
}
"""What answers where the settings name no upstream."""


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that serves until its block ends."""

    url: str
    """`http://127.0.0.1:PORT`."""
    admin_url: str
    server: Server

    @property
    def base_url(self) -> str:
        """What a client's `base_url` has to be."""
        return f"{self.url}/v1"


@asynccontextmanager
async def predawn_server(settings: Mapping[str, Any], *, clock: Clock | None = None) -> AsyncIterator[RunningServer]:
    """Start a server with these settings, as a settings file would have them; a scripted upstream if they name none.

    Plugins are found as `predawn serve` finds them: built-in ones, and installed ones, by name. Raises what keeps a
    server from starting.
    """
    from predawn.proxy.server import running
    from predawn.proxy.settings import Settings

    with tempfile.TemporaryDirectory(prefix="predawn-test-") as folder:
        standard: dict[str, Any] = {"state": str(Path(folder) / "state.db")}
        if not settings.get("upstreams"):
            standard.update(SCRIPTED)
        given = {**standard, **settings, "server": {"port": 0, "admin_port": 0, **settings.get("server", {})}}
        async with running(Settings.model_validate(given), clock=clock) as server:
            host = server.settings.server.host
            yield RunningServer(f"http://{host}:{server.port}", f"http://{host}:{server.admin_port}", server)


def scripted_server(
    script: Script | Answer | str | None = None, *, port: int = 0, choose: Choose | None = None
) -> AbstractAsyncContextManager[ScriptedServer]:
    """A scripted provider over HTTP on a free port: `async with scripted_server("hello") as provider:`."""
    from predawn.proxy.upstreams.scripted.server import scripted_server as serve

    return serve(script, port=port, choose=choose)
