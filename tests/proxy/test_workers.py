"""Signals and deaths of workers, with real processes."""

import os
import signal

import pytest

from predawn.proxy.workers import Supervisor

ENDLESS = ("upstream", "scripted", "--port", "0")
BROKEN = ("--no-such-option",)


@pytest.fixture
def supervise():
    made = []

    def start(arguments, *, stopping=False):
        supervisor = Supervisor(arguments, 1, stopping=stopping)
        made.append(supervisor)
        supervisor.start(1)
        return supervisor

    yield start
    for supervisor in made:
        for process in supervisor.processes.values():
            process.kill()
            process.wait()


def test_a_worker_started_after_the_signal_is_told_as_well(supervise):
    supervisor = supervise(ENDLESS, stopping=True)

    status = supervisor.processes[1].wait(timeout=20)

    assert status in (0, -signal.SIGTERM)


def test_a_terminal_does_not_reach_the_workers_past_their_supervisor(supervise):
    supervisor = supervise(ENDLESS)
    pid = supervisor.processes[1].pid

    assert pid == os.getpgid(pid)


def test_a_worker_that_dies_as_the_signal_comes_is_noticed(supervise):
    supervisor = supervise(BROKEN)
    os.waitid(os.P_PID, supervisor.processes[1].pid, os.WEXITED | os.WNOWAIT)  # dead, and not reaped

    supervisor.pass_on(signal.SIGTERM, None)

    assert 0 == supervisor.watch()
    assert {} == supervisor.processes
