"""That nothing is done per chunk: calls into the instruments' code for a short stream and for a long one."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from predawn.plugins.testing import Script, workbench
from predawn.plugins.traces import TracesPlugin, TracesSettings
from predawn.plugins.traces.exporting import Sent

INSTRUMENTS = ("meters.py", "metrics.py", "traffic.py", "tenants.py", "accounting.py", "declared.py", "traces")


class _Nobody:
    async def export(self, body: bytes) -> Sent:
        return Sent(ok=bool(body))

    async def aclose(self) -> None:
        pass


async def calls(words: int) -> int:
    """Calls of functions of the instruments while one stream of so many words is served, recorded and traced."""
    plugin = TracesPlugin(TracesSettings(flush_s=60))
    plugin.exporter = _Nobody()
    script = Script.of(*[" ".join(["word"] * words)] * 2)
    async with workbench(plugin, upstream=script) as bench:
        await bench.run(stream=True)
        counted = 0

        def count(frame: Any, event: str, _: object) -> None:
            nonlocal counted
            path = Path(frame.f_code.co_filename)
            if event == "call" and (path.name in INSTRUMENTS or path.parent.name in INSTRUMENTS):
                counted += 1

        sys.setprofile(count)
        try:
            result = await bench.run(stream=True)
        finally:
            sys.setprofile(None)
        assert result.text.count("word") == words, result.text[:200]
    return counted


def measured(short: int = 10, long: int = 1000) -> dict[str, int]:
    """Calls by the length of the stream."""
    return {str(words): asyncio.run(calls(words)) for words in (short, long)}
