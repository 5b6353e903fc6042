"""Looks after the jobs while they are open: shows that we live, takes over from the dead, forgets what is long over.

A process that stops is noticed after at most `LOOK_S * (DEAD_AFTER_LOOKS + 1)` seconds, 21 s; with a poll of its queue
its jobs go on within 30 s.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from predawn.proxy.store_errors import StoreError

if TYPE_CHECKING:
    from predawn.proxy.clock import Clock
    from predawn.proxy.jobs.durable import DurableJobEngine

log = logging.getLogger("predawn.jobs")

TEND_S = 1.0
LOOK_S = 3.0
FORGET_S = 60.0


async def keep(engine: DurableJobEngine, clock: Clock, keep_finished_s: float) -> None:
    """Do so until cancelled; a store that cannot be reached is tried again."""
    look_at = forget_at = clock.monotonic()
    is_reached = True
    while True:
        now = clock.monotonic()
        try:
            await engine.tend()
            if now >= look_at:
                look_at = now + LOOK_S
                await engine.take_over()
            if now >= forget_at:
                forget_at = now + FORGET_S
                await engine.forget_finished(clock.now() - keep_finished_s)
            is_reached = True
        except StoreError as exc:
            if is_reached:
                log.error("jobs: %s", exc)
            is_reached = False
        await clock.sleep(TEND_S)
