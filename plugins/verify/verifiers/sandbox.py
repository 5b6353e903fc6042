"""Runs code by a command of the settings: with limits, without an environment; all it started is killed after it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    timeout_s: float = 5.0
    memory_mb: int = 512
    output_bytes: int = 65_536


@dataclass(frozen=True, slots=True)
class Ran:
    """How a run ended; `code` is `None` where it had to be killed."""

    code: int | None
    output: str


async def run(command: Sequence[str], source: str, limits: Limits) -> Ran:
    """Feed `source` to a command and wait for its end. Raises `OSError` if it cannot be started."""
    with tempfile.TemporaryDirectory(prefix="predawn-run-") as folder:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=folder,
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8", "HOME": folder},
            start_new_session=True,
        )
        output = b""
        try:
            _limit(process.pid, limits)  # before it is given anything to run
            async with asyncio.timeout(limits.timeout_s):
                output = await _talk(process, source.encode("utf-8", "replace"), limits.output_bytes)
                code: int | None = await process.wait()
        except TimeoutError:
            code = None
        finally:
            _kill(process.pid)
            process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001 - lets go of pipes that others hold open
            await process.wait()
        return Ran(code, output.decode("utf-8", "replace"))


async def _talk(process: asyncio.subprocess.Process, source: bytes, most: int) -> bytes:
    """Write all, then read to the end; what says more than `most` bytes is killed, and the rest of it dropped.

    A pipe that is not read to its end is never closed, and `wait` then waits for ever.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(source)
        await process.stdin.drain()
    process.stdin.close()
    output = b""
    while piece := await process.stdout.read(most):
        if len(output) < most:
            output += piece
            if len(output) >= most:
                _kill(process.pid)
    return output[:most]


def _limit(pid: int, limits: Limits) -> None:
    memory = limits.memory_mb << 20
    cpu_s = int(limits.timeout_s) + 1
    if hasattr(resource, "prlimit"):
        with contextlib.suppress(OSError, ValueError):
            resource.prlimit(pid, resource.RLIMIT_AS, (memory, memory))
            resource.prlimit(pid, resource.RLIMIT_CPU, (cpu_s, cpu_s))
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
            resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
