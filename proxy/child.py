"""Processes that never outlive the one that started them.

A child is given a pipe as its standard input and ends when that pipe does, which is when its parent closes it or is
gone, `kill -9` included. Programs that know nothing of this run on a leash: this file, run as a program in any
environment, runs a module (`pip`), a function (`package.module:function`) or a file with the arguments that follow.
"""

from __future__ import annotations

import importlib
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GRACE_S = 8.0
"""How long a child may take to end in order; the server finishes its streams meanwhile."""


class Child:
    """A running program that reads the end of its standard input as the order to stop."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        log: Path,
        out: Path | None = None,
        env: Mapping[str, str] | None = None,
        talks: bool = False,
    ) -> None:
        """Start the program. Its errors go to `log`; its output to `out`, else there too, or to ours if it `talks`."""
        self.log = log
        with log.open("ab") as errors, (out or log).open("ab") as output:
            # A session of its own: Ctrl-C reaches only the parent, which then stops its children in order.
            self.process = subprocess.Popen(  # noqa: S603 - our own programs
                arguments,
                stdin=subprocess.PIPE,
                stdout=None if talks else output,
                stderr=errors,
                env=env,
                start_new_session=True,
            )

    @property
    def status(self) -> int | None:
        """The exit status, or `None` while it runs."""
        return self.process.poll()

    def tail(self, lines: int = 12) -> str:
        """The last words it wrote, for an error message."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def stop(self, grace_s: float = GRACE_S) -> None:
        """End it in order, then by force; afterwards it is gone."""
        if self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()
        for end in (None, self.process.terminate, self.process.kill):
            if end is not None:
                end()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(grace_s)
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def leashed(python: Path | str, what: str, *arguments: str) -> list[str]:
    """The command that runs a module, function or file on a leash; `-P` keeps this folder off its import path."""
    return [str(python), "-P", str(Path(__file__)), what, *arguments]


def end_with_parent(grace_s: float = GRACE_S) -> None:
    """Send SIGTERM to this process when its standard input ends, and end it the hard way `grace_s` later."""
    threading.Thread(target=_wait_for_the_end, args=(grace_s,), name="leash", daemon=True).start()


def _wait_for_the_end(grace_s: float) -> None:
    while os.read(0, 4096):  # not sys.stdin: its lock would be held when the interpreter shuts down
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_s)
    os._exit(1)


def main() -> None:
    """Run what the first argument names until it is done or the parent is gone."""
    end_with_parent()
    del sys.argv[0]
    what = sys.argv[0]
    if what.endswith(".py"):
        runpy.run_path(what, run_name="__main__")
        return
    module, _, function = what.partition(":")
    if function:
        sys.exit(getattr(importlib.import_module(module), function)())
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
