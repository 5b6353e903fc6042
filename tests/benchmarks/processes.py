"""Programs under measurement: started pinned to a core, charged for their whole tree, and always ended."""

import contextlib
import json
import os
import random
import resource
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.evidence import CHECKOUT

# Below the kernel's range for outgoing connections (32768+), so that a peer's own client cannot take a chosen port.
PORTS = range(20000, 32000)


def free_port(random_: random.Random | None = None) -> int:
    """A port on which nobody listens now, not given out before by this process unless `random_` repeats itself."""
    source = random_ or random.SystemRandom()
    for _ in range(200):
        port = source.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port between 20000 and 32000 after 200 tries")


def raise_file_limit() -> None:
    """A thousand streams need a few thousand sockets. Children inherit the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def tree(root: int) -> list[int]:
    """The process and all its descendants that live now."""
    found = [root]
    for pid in found:
        for listing in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in listing.read_text().split()]
    return found


def cpu_us(pids: Sequence[int]) -> float:
    """CPU time used so far by all threads of the processes, from the scheduler's own nanosecond accounts.

    A thread that has ended takes its account with it, so compare readings only across short spans.
    """
    total = 0
    for pid in pids:
        for account in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                total += int(account.read_text().split()[0])
    return total / 1000


def memory_mb(pids: Sequence[int]) -> float:
    """Proportional set size (PSS): pages shared between processes are split among them."""
    total_kb = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total_kb += int(line.split()[1])
    return total_kb / 1024


@dataclass(slots=True)
class Running:
    """A started program. Its output goes to `log`."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pids(self) -> list[int]:
        return tree(self.process.pid)

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def last_words(self, size: int = 300) -> str:
        """The end of its log: why it did not start. Without the folders above the checkout: evidence names no machine."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        said = lines[-1] if lines else "it said nothing"
        said = said.replace(f"{CHECKOUT}/", "")
        return said if len(said) <= size else f"… {said[-size:]}"

    def stop(self, patience_s: float = 5.0) -> None:
        """Ends the whole tree: asks, waits, then kills."""
        pids = self.pids
        _signal(pids, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(patience_s)
        _signal(pids, signal.SIGKILL)
        self.process.wait()


def _signal(pids: Sequence[int], number: int) -> None:
    for pid in reversed(pids):
        with contextlib.suppress(OSError):
            os.kill(pid, number)


def start(
    command: Sequence[str],
    *,
    core: int | None,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Running:
    """Starts a program on one core (`core=None`: on any). The caller stops it."""
    pinned = [*command] if core is None else ["taskset", "-c", str(core), *command]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        process = subprocess.Popen(
            pinned,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            cwd=cwd,
        )
    return Running(process, log)


@contextlib.contextmanager
def running(
    command: Sequence[str], *, core: int | None, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Like `start`, ended with the block."""
    program = start(command, core=core, log=log, env=env)
    try:
        yield program
    finally:
        program.stop()


def connections_on(port: int) -> int:
    """Connections that a server on this port still holds: established, or closed by the client alone."""
    held = {"01", "08"}  # ESTABLISHED, CLOSE_WAIT
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    ends = (row.split() for row in rows)
    return sum(end[3] in held and int(end[1].rpartition(":")[2], 16) == port for end in ends)


def get_json(url: str, timeout_s: float = 5.0, headers: Mapping[str, str] | None = None) -> Any:
    """A GET on loopback, decoded."""
    return json.loads(get_bytes(url, timeout_s, headers))


def get_bytes(url: str, timeout_s: float = 5.0, headers: Mapping[str, str] | None = None) -> bytes:
    with urllib.request.urlopen(
        urllib.request.Request(url, headers=dict(headers or {})), timeout=timeout_s
    ) as response:
        body: bytes = response.read()
        return body


def wait_until_listening(port: int, program: Running, patience_s: float) -> None:
    """Returns when something accepts on the port; raises RuntimeError with the program's last words otherwise."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if program.ended:
            raise RuntimeError(f"ended at once: {program.last_words()}")
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"did not listen within {patience_s:.0f} s: {program.last_words()}")
