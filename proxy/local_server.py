"""`predawn serve` as a process of our own: for the demo and for tests that want the real thing."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from predawn.proxy.child import Child, leashed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

START_TIMEOUT_S = 30.0
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class StartError(Exception):
    """The server did not start; the message has its last words."""


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A running server."""

    base_url: str
    """`/v1` included."""
    admin_url: str
    child: Child


@contextmanager
def serving(
    settings: Mapping[str, Any], *, folder: Path, env: Mapping[str, str] | None = None, port: int = 0
) -> Iterator[LocalServer]:
    """Serve `settings` on loopback until the block ends; state, log and settings file are kept in `folder`.

    A `port` of 0 takes a free one.
    """
    for attempt in range(3):  # another process may take a free port before the server does
        api, admin = _free_ports(port)
        path = folder / "predawn.yaml"
        path.write_text(json.dumps(_located(settings, folder, api, admin), indent=1), encoding="utf-8")
        command = leashed(sys.executable, "predawn.proxy.cli:main", "serve", "--config", str(path))
        with Child(command, log=folder / "server.log", env={**os.environ, **(env or {})}) as child:
            server = LocalServer(f"http://127.0.0.1:{api}/v1", f"http://127.0.0.1:{admin}", child)
            if _is_ready(server):
                yield server
                return
            words = child.tail()
        if "in use" not in words or port or attempt == 2:
            raise StartError(f"predawn serve did not start:\n{words}")


def fetch(url: str, *, timeout_s: float = 10, headers: Mapping[str, str] | None = None) -> bytes:
    """The body at a loopback address, past any proxy that the environment names. Raises `OSError`."""
    request = urllib.request.Request(url, headers=dict(headers or {}))  # noqa: S310 - addresses of our own servers
    with _direct.open(request, timeout=timeout_s) as answer:
        body: bytes = answer.read()
    return body


def _located(settings: Mapping[str, Any], folder: Path, api: int, admin: int) -> dict[str, Any]:
    """The settings with ports, state and a quick end filled in; JSON is YAML."""
    server = {"host": "127.0.0.1", "port": api, "admin_port": admin, "drain_grace_s": 0, "drain_timeout_s": 3}
    return {"state": str(folder / "state.db"), **settings, "server": {**server, **settings.get("server", {})}}


def _free_ports(port: int) -> tuple[int, int]:
    """Two ports that were free a moment ago."""
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return port or first.getsockname()[1], second.getsockname()[1]


def _is_ready(server: LocalServer) -> bool:
    """Wait until the server accepts requests; False if it ended or stayed silent."""
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up_at and server.child.status is None:
        try:
            fetch(f"{server.admin_url}/ready", timeout_s=2)
            # another one's, if it took the port first, does not answer at both
            with socket.create_connection(("127.0.0.1", urlsplit(server.base_url).port or 80), timeout=2):
                return server.child.status is None
        except OSError:
            time.sleep(0.05)
    return False
