"""Several processes on one port: a supervisor starts them, restarts the dead, and passes signals on.

Each worker is a `predawn serve` of its own that shares the port by SO_REUSEPORT and has its own admin port, counted up
from the first one's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from predawn.proxy.settings import Settings

RESTART_PAUSE_S = 1.0
QUICK_DEATH_S = 5.0
QUICK_DEATHS = 5
"""So many deaths in a row, each soon after a start, and the supervisor gives up: the settings cannot be served."""


@dataclass(slots=True)
class Supervisor:
    """The parent of the workers."""

    arguments: Sequence[str]
    count: int
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict[int, "subprocess.Popen[bytes]"])
    started_at: dict[int, float] = field(default_factory=dict[int, float])
    quick_deaths: int = 0
    stopping: bool = False

    def start(self, number: int) -> None:
        """Start worker `number`, counted from 1."""
        command = [sys.executable, "-m", "predawn.proxy.cli", *self.arguments, "--worker", str(number)]
        # in a group of its own: a terminal's Ctrl-C would reach it twice, and a second signal ends at once
        process = subprocess.Popen(command, process_group=0)  # noqa: S603 - our own interpreter and arguments
        self.processes[number] = process
        self.started_at[number] = time.monotonic()
        if self.stopping:  # the signal came too early to be passed on to this one
            process.terminate()

    def pass_on(self, number: int, _frame: FrameType | None) -> None:
        """Hand a signal to every worker."""
        if number in (signal.SIGTERM, signal.SIGINT):
            self.stopping = True
        for process in self.processes.values():
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)  # `send_signal` would reap one that just died, and `watch` wait for ever

    def watch(self) -> int:
        """Restart workers that die, until told to stop; the exit status of the whole."""
        status = 0
        while self.processes:
            pid, wait_status = os.wait()
            number = next((n for n, process in self.processes.items() if process.pid == pid), None)
            if number is None:
                continue
            process = self.processes.pop(number)
            process.returncode = os.waitstatus_to_exitcode(wait_status)
            if self.stopping:
                continue
            print(f"predawn: worker {number} ended with {process.returncode}; starting another", file=sys.stderr)
            self.quick_deaths = self.quick_deaths + 1 if self._died_young(number) else 0
            if self.quick_deaths >= QUICK_DEATHS:
                print("predawn: workers die as soon as they start; giving up", file=sys.stderr)
                status = 1
                self.pass_on(signal.SIGTERM, None)
                continue
            time.sleep(RESTART_PAUSE_S)
            if not self.stopping:
                self.start(number)
        return status

    def _died_young(self, number: int) -> bool:
        return time.monotonic() - self.started_at[number] < QUICK_DEATH_S


def supervise(settings: Settings, arguments: Sequence[str]) -> int:
    """Run `settings.server.workers` workers until a signal ends them. Returns the exit status."""
    supervisor = Supervisor(arguments, settings.server.workers)
    for caught in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(caught, supervisor.pass_on)
    for number in range(1, supervisor.count + 1):
        supervisor.start(number)
    return supervisor.watch()
