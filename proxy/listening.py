"""Listening sockets: bound by a server for itself, or by a supervisor that hands them down to its workers."""

from __future__ import annotations

import asyncio
import errno
import select
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from ssl import SSLContext

Address: TypeAlias = "tuple[str | int | bytes, ...]"
BACKLOG: Final = 4096
HANDSHAKE_S: Final = 15.0
"""A client that takes longer for its TLS handshake is cut off."""


def bind(host: str, port: int, *, shared: bool = False) -> list[socket.socket]:
    """A socket for each address of `host`, bound and not yet listening. Raises `OSError` naming the address.

    A `shared` port may be bound again by sockets that are shared, too; the kernel then spreads the connections.
    """
    bound: list[socket.socket] = []
    try:
        for family, address in _addresses(host, port):
            at = (address[0], bound[0].getsockname()[1], *address[2:]) if bound and port == 0 else address
            bound.append(_bound(family, at, shared=shared))
    except OSError as exc:
        for one in bound:
            one.close()
        raise OSError(exc.errno, _why(host, port, exc)) from exc
    return bound


def _addresses(host: str, port: int) -> list[tuple[int, Address]]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    names: list[tuple[int, Address]] = [(family, address) for family, _, _, _, address in dict.fromkeys(found)]
    return [one for one in names if one[0] != socket.AF_INET6 or len(names) == 1 or _has_ipv6(one[1])]


def _has_ipv6(address: Address) -> bool:
    """False where a name has an IPv6 address, too, but the machine does not: `localhost` in many containers."""
    try:
        _bound(socket.AF_INET6, (address[0], 0, *address[2:]), shared=False).close()
    except OSError as exc:
        return exc.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    return True


def _bound(family: int, address: Address, *, shared: bool) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(address)
    except BaseException:
        made.close()
        raise
    return made


def _why(host: str, port: int, exc: OSError) -> str:
    taken = exc.errno == errno.EADDRINUSE
    return f"cannot listen on {host}:{port}: {exc.strerror or exc}{' by another program' if taken else ''}"


def refuse_taken(host: str, port: int) -> None:
    """Raise `OSError` if somebody listens there: a port that is shared would be shared with strangers, too."""
    for one in bind(host, port):
        one.close()


@dataclass(frozen=True, slots=True)
class Sockets:
    """What one worker listens on, bound beforehand by its supervisor."""

    api: Sequence[socket.socket]
    admin: Sequence[socket.socket]


@dataclass(slots=True)
class Listening:
    """A server's open sockets."""

    port: int
    _servers: tuple[asyncio.Server, ...]

    def close(self) -> None:
        """Stop accepting; connections that are open stay open."""
        for server in self._servers:
            server.close()

    async def drain(self) -> None:
        """Accept who is waiting already, for the kernel would break those connections, and close."""
        waiting = select.poll()
        for server in self._servers:
            for one in server.sockets:
                waiting.register(one.fileno(), select.POLLIN)
        for _ in range(BACKLOG):  # uvloop accepts one in a turn
            if not waiting.poll(0):
                break
            await asyncio.sleep(0)
        for _ in range(3):  # asyncio joins a connection to its server in a later turn, and cannot once that is closed
            await asyncio.sleep(0)
        self.close()

    async def wait_closed(self) -> None:
        """Wait for what `close` began."""
        for server in self._servers:
            await server.wait_closed()


async def listen(
    connection: Callable[[], asyncio.BaseProtocol], sockets: Sequence[socket.socket], *, tls: SSLContext | None = None
) -> Listening:
    """Accept connections on these sockets, which are its own from now on. Raises `OSError`, and closes them."""
    loop = asyncio.get_running_loop()
    port = int(sockets[0].getsockname()[1])
    servers: list[asyncio.Server] = []
    timeout_s = HANDSHAKE_S if tls is not None else None
    try:
        for one in sockets:
            made = await loop.create_server(
                connection, sock=one, backlog=BACKLOG, ssl=tls, ssl_handshake_timeout=timeout_s
            )
            servers.append(made)
    except OSError as exc:
        for server in servers:
            server.close()
        for one in sockets:
            one.close()
        raise OSError(exc.errno, f"cannot listen on port {port}: {exc.strerror or exc}") from exc
    return Listening(port, tuple(servers))
