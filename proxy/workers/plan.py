"""What a fleet of workers serves with: settings, the text they were read from, and the sockets of each worker."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Self

from predawn.proxy import tls
from predawn.proxy.listening import Sockets, bind, refuse_taken

if TYPE_CHECKING:
    from collections.abc import Sequence

    from predawn.proxy.settings import ServerSettings, Settings

    Bound = Sequence[socket.socket]


@dataclass(frozen=True, slots=True)
class Plan:
    """Made whole or not at all; `close` gives up the sockets that a newer plan did not take over."""

    settings: Settings
    raw: bytes
    sockets: list[Sockets] = field(default_factory=list[Sockets])

    @classmethod
    def read(cls, raw: bytes, settings: Settings) -> Self:
        """A plan without sockets. Raises `TlsError` where certificate or key cannot be used."""
        if settings.server.tls is not None:
            tls.load(settings.server.tls)
        return cls(settings, raw)

    def bound(self, before: Plan | None = None) -> Plan:
        """With a socket for each worker; those of `before` are taken over where it has the same addresses.

        Raises `OSError` where somebody else listens.
        """
        server = self.settings.server
        old = before.settings.server if before is not None else None
        kept = before.sockets if before is not None else []
        with ExitStack() as opened:
            same = old is not None and (old.host, old.port) == (server.host, server.port)
            api = _api(server, [one.api for one in kept] if same else [], opened)
            port = api[0][0].getsockname()[1]
            same = old is not None and _admin_port(old, port) == _admin_port(server, port)
            same = same and old is not None and old.admin_host == server.admin_host
            admin = _admin(server, port, [one.admin for one in kept] if same else [], opened)
            opened.pop_all()
        return Plan(self.settings, self.raw, [Sockets(*pair) for pair in zip(api, admin, strict=True)])

    def close(self, unlike: Plan | None = None) -> None:
        """Close the sockets, but those that `unlike` has, too."""
        others = set(unlike.every) if unlike is not None else set[socket.socket]()
        for one in self.every:
            if one not in others:
                one.close()

    def leave(self, number: int) -> None:
        """Take a worker that cannot be started off the port: nobody waits where nobody accepts. Raises `OSError`."""
        old = self.sockets[number - 1]
        port = old.api[0].getsockname()[1]
        self.sockets[number - 1] = Sockets(bind(self.settings.server.host, port, shared=True), old.admin)
        for one in old.api:
            one.close()

    @property
    def every(self) -> list[socket.socket]:
        """All sockets."""
        return [one for both in self.sockets for one in chain(both.api, both.admin)]

    def __str__(self) -> str:
        server = self.settings.server
        scheme = "https" if server.tls is not None else "http"
        port = self.sockets[0].api[0].getsockname()[1]
        ports = [both.admin[0].getsockname()[1] for both in self.sockets]
        in_a_row = len(ports) > 1 and ports[-1] - ports[0] == len(ports) - 1
        shown = f"{ports[0]} to {ports[-1]}" if in_a_row else ", ".join(map(str, ports))
        count = f"{len(ports)} workers share" if len(ports) > 1 else "1 worker serves"
        return f"{count} {scheme}://{server.host}:{port}/v1, metrics on {'ports' if len(ports) > 1 else 'port'} {shown}"


def _api(server: ServerSettings, kept: list[Bound], opened: ExitStack) -> list[Bound]:
    port = server.port
    if not kept and port:
        refuse_taken(server.host, port)
    made = list(kept[: server.workers])
    while len(made) < server.workers:
        if made:
            port = made[0][0].getsockname()[1]
        made.append(_open(bind(server.host, port, shared=True), opened))
    return made


def _admin_port(server: ServerSettings, port: int) -> int:
    if server.admin_port is not None:
        return server.admin_port
    return port + 1000 if server.port else 0


def _admin(server: ServerSettings, port: int, kept: list[Bound], opened: ExitStack) -> list[Bound]:
    first = _admin_port(server, port)
    made = list(kept[: server.workers])
    while len(made) < server.workers:
        made.append(_open(bind(server.admin_host, first + len(made) if first else 0), opened))
    return made


def _open(bound: Bound, opened: ExitStack) -> Bound:
    for one in bound:
        opened.callback(one.close)
    return bound
