"""A process that is kept ready to parse code in, so that none has to be started while answers are written.

To start one from a server holds its event loop up: for a millisecond at best, and on a busy machine for as long as it
takes until the new process has got a core and read its program. This one does nothing but divide: a copy of it parses
each code, with a limit for everything, and whatever becomes of that copy, the next code finds the same process.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

from predawn.plugins.verify.verifiers import python_names

if TYPE_CHECKING:
    from collections.abc import Sequence

AT_ONCE = 8
"""Codes that are parsed side by side."""
MOST_BYTES = 1 << 20
"""Of a report."""


class Parser:
    """Parses in another process. As long as it is open that process lives, and no longer than this one."""

    def __init__(self) -> None:
        """Start it. Raises `OSError` if that cannot be done."""
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        self._free = asyncio.Semaphore(AT_ONCE)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-I", "-S", python_names.__file__, python_names.STAY],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={},
                cwd="/",
                start_new_session=True,
            )

    async def report(self, code: bytes, version: Sequence[int], timeout_s: float) -> bytes:
        """What `python_names.report` says, as JSON; empty where that took too long, or more than it may.

        What is parsing may be ended with part of the code unread, which resets its socket.

        Raises `OSError` where there is no such process any more.
        """
        async with self._free:
            ours, theirs = socket.socketpair()
            with closing(ours):
                ours.setblocking(False)
                with theirs:
                    told = python_names.order(version, timeout_s)
                    socket.send_fds(self._socket, [told], [theirs.fileno()])
                try:
                    return await _talk(ours, code)
                except ConnectionError:
                    return b""

    def close(self) -> None:
        """End it; what is being parsed ends by its own limits."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


async def _talk(peer: socket.socket, code: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(peer, code)
    peer.shutdown(socket.SHUT_WR)
    said = b""
    while len(said) < MOST_BYTES and (piece := await loop.sock_recv(peer, MOST_BYTES)):
        said += piece
    return said
