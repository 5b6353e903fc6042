"""Verifiers that pass everything after a while: 1, 20 and 200 ms."""

import asyncio
from typing import Any

from predawn.plugins import Exchange, Plugin, PluginSettings, RegisterVerifier, Step, Verdict, hookimpl

DELAYS_MS = (1, 20, 200)
STEP_CHARS = 40
CROWD = "windows"
"""Reads steps of twelve tokens."""
PASS = Verdict("pass")


def pairs(text: str) -> int:
    """Steps of two tokens of the scripted upstream."""
    return STEP_CHARS if len(text) >= STEP_CHARS else 0


class Slow:
    """Waits, as a verifier does that asks somebody else."""

    boundary: Any = staticmethod(pairs)
    reads = ("content",)

    def __init__(self, delay_ms: int, name: str = "", boundary: Any = None) -> None:
        self.name = name or f"slow{delay_ms}"
        if boundary is not None:
            self.boundary = boundary
        self._delay_s = delay_ms / 1000

    async def verify(self, step: Step, exchange: Exchange) -> Verdict:
        del step, exchange
        await asyncio.sleep(self._delay_s)
        return PASS


class SlowPlugin(Plugin[PluginSettings]):
    """Registers one for each delay."""

    @hookimpl
    def register_verifiers(self, register: RegisterVerifier) -> None:
        for delay_ms in DELAYS_MS:
            register(Slow(delay_ms))
        register(Slow(20, CROWD, "window"))
