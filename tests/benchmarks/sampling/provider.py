"""A provider in a process of its own that writes a chunk each so many milliseconds: `python provider.py 10`."""

from __future__ import annotations

import asyncio
import re
import sys

from predawn.plugins.testing import Answer, Received, scripted_server


def answer(received: Received) -> Answer:
    """As many chunks as the message asks for."""
    found = re.search(r"chunks=(\d+)", received.text)
    return Answer(text="word " * (int(found[1]) if found else 50) + "42", interval_ms=float(sys.argv[1]))


async def main() -> None:
    async with scripted_server(choose=answer) as server:
        print(server.base_url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
