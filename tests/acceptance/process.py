"""`predawn serve` as a process of its own, as an operator runs it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.acceptance.house import until

START_S = 30.0
ROOT = Path(__file__).parents[2]


class Predawn:
    """A running command and what it has said."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")

    async def says(self, text: str, *, times: int = 1) -> None:
        """Wait until its log holds this text; fail with the log if the process ends first."""
        try:
            await until(lambda: self.log.count(text) >= times or self.process.returncode is not None, seconds=START_S)
        except TimeoutError:
            raise AssertionError(f"it never said {text!r}, but:\n{self.log}") from None
        assert self.log.count(text) >= times, self.log

    @property
    def ports(self) -> tuple[int, int]:
        """The API's port and the admin port, once they are open."""
        found = re.search(r"serving on https?://[^:]+:(\d+)/v1, metrics on port (\d+)", self.log)
        assert found, self.log
        return int(found[1]), int(found[2])

    @property
    def port(self) -> int:
        return self.ports[0]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit status."""
        async with asyncio.timeout(START_S):
            return await self.process.wait()

    @property
    def children(self) -> list[int]:
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    @property
    def resident_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found
        return int(found[1]) / 1024


def write_settings(path: Path, settings: Mapping[str, Any]) -> Path:
    """JSON is YAML."""
    path.write_text(json.dumps(settings, indent=1))
    return path


@asynccontextmanager
async def predawn(
    folder: Path, *arguments: str | Path, module: str = "predawn.proxy.cli", log_name: str = "log"
) -> AsyncIterator[Predawn]:
    """Start the command, or another module; it is killed at the end if it still runs."""
    log = folder / log_name
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "PREDAWN_"))}
    kept["PYTHONPATH"] = str(ROOT)  # for modules of these tests
    command = [sys.executable, "-m", module, *map(str, arguments)]
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(*command, stdout=out, stderr=out, env=kept, cwd=folder)
    try:
        yield Predawn(process, log)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def serving(folder: Path, settings: Mapping[str, Any], *arguments: str) -> AsyncIterator[Predawn]:
    """Serve these settings and wait until requests are welcome."""
    config = write_settings(folder / "predawn.yaml", settings)
    async with predawn(folder, "serve", "--config", config, *arguments) as started:
        await started.says("serving on")
        yield started


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
