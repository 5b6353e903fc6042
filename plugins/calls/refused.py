"""An error that an upstream answered, kept so that a client can be given it as it came."""

from __future__ import annotations

from collections.abc import AsyncIterator

from predawn.plugins import Reply
from predawn.proxy.exchange import closing
from predawn.proxy.wire.fold import whole_body

MOST_BYTES = 1 << 20


class Refused(Exception):  # noqa: N818 - what happened to a call; the error is the upstream's
    """An upstream answered with a status of 400 or more."""

    def __init__(self, reply: Reply, body: bytes) -> None:
        super().__init__(f"refused with {reply.status}: {body[:300].decode('utf-8', 'replace')}")
        self.status = reply.status
        self.headers = reply.headers
        self.body = body

    def reply(self) -> Reply:
        """The answer as it came, for a client."""
        return Reply(self.status, self.headers, source=_Held(self.body), split=whole_body)


class _Held:
    """A body that is here already."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body

    async def aclose(self) -> None:
        """Nothing to close."""


async def body_of_refusal(reply: Reply) -> bytes:
    """What it says, as far as anybody would read."""
    said = bytearray()
    if reply.is_raw and reply.source is not None:
        async for data in reply.source:
            said += data
            if len(said) > MOST_BYTES:
                break
    else:
        async with closing(reply.chunks):
            async for chunk in reply.chunks:
                said += chunk.raw
    return bytes(said)
