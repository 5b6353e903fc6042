"""Request bodies that are not sent at once: large ones, and those that come while they are sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
from aiohttp.web_protocol import RequestPayloadError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from predawn.proxy.upstreams.connection import UpstreamConnection

PIECE_BYTES = 256 << 10


async def send_pieces(connection: UpstreamConnection, pieces: AsyncIterator[bytes], length: int | None) -> None:
    """Send a body as fast as the upstream takes it: `length` bytes, or chunked where that is `None`.

    The connection is given up if the body is longer or shorter than announced, or is lost on its way here. If the
    answer ends first, the connection ends, and it cancels this.
    """
    sent = 0
    try:
        async for piece in pieces:
            sent += len(piece)
            if length is not None and sent > length:
                connection.fail("the request's body is longer than announced")
                return
            if piece:
                connection.write(b"%x\r\n%b\r\n" % (len(piece), piece) if length is None else piece)
                await connection.drain()
    except (OSError, aiohttp.ClientError, RequestPayloadError) as exc:
        connection.fail(f"the request's body was cut off ({type(exc).__name__})")
        return
    if length is None:
        connection.write(b"0\r\n\r\n")
    elif sent < length:
        connection.fail("the request's body is shorter than announced")
        return
    connection.upload = None


async def in_pieces(body: bytes) -> AsyncIterator[bytes]:
    """A large body in pieces, so that sending it does not hold up the others."""
    view = memoryview(body)
    for start in range(0, len(body), PIECE_BYTES):
        yield bytes(view[start : start + PIECE_BYTES])
