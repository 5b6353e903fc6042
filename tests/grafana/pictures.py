"""Draws docs/images/dashboards/*.png: `make pictures-dashboards`. A calm day of made-up traffic, with some faults."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

import aiohttp
from grafana.render.__main__ import PICTURES, pictures
from tests.grafana.stand import stand
from tests.grafana.traffic import Traffic

SECONDS = 240
LEAD_IN_S = 40
"""Left out: nothing has happened yet."""


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="predawn-pictures-") as folder:
        async with stand(Path(folder)) as running, aiohttp.ClientSession() as session:
            print(f"{SECONDS} seconds of traffic …", flush=True)
            busy = asyncio.gather(Traffic(running, session).run(SECONDS, calm=True))
            await asyncio.sleep(SECONDS - 10)  # drawn while it goes on, so that the last values are of a busy moment
            span = running.span(SECONDS - 10 - LEAD_IN_S)
            for path in await asyncio.to_thread(pictures, running.prometheus, span, PICTURES):
                print(path)
            await busy


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
