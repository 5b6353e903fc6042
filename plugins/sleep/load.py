"""Asks upstreams how busy they are, where they tell."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from predawn.plugins.sleep.saturation import MOST_METRICS_BYTES

if TYPE_CHECKING:
    from predawn.plugins.sleep.night import Night
    from predawn.plugins.sleep.places import Places
    from predawn.proxy.clock import Clock

log = logging.getLogger("predawn.sleep")
EVERY_S = 5.0
TIMEOUT_S = 4.0


async def watch_load(urls: Mapping[str, str], night: Night, places: Places, clock: Clock) -> None:
    """Read the metrics pages of upstreams until cancelled; one that cannot be read tells nothing."""
    if not urls:
        return
    import aiohttp

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session:
        while True:
            for upstream, url in urls.items():
                try:
                    async with session.get(url) as reply:
                        page = await reply.content.read(MOST_METRICS_BYTES)
                except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
                    log.debug("%s does not tell its load: %s", upstream, exc)
                else:
                    night.told(places.place_of(upstream), page.decode("utf-8", "replace"))
            await clock.sleep(EVERY_S)
