"""The command line: `predawn COMMAND`. Each command is a module of `commands/` with `add_parser`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from predawn.proxy.commands import (
    check,
    contexts,
    demo,
    exchanges,
    kernels,
    keys,
    plugins,
    serve,
    simulate,
    upstream,
    worker,
)

PIPE_CLOSED = 141
"""What a shell makes of SIGPIPE."""
COMMANDS = (serve, worker, demo, check, plugins, keys, exchanges, contexts, simulate, upstream, kernels)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="predawn",
        description="An OpenAI-compatible proxy that decides when inference compute is spent.",
    )
    top.add_argument("--version", action="version", version=f"predawn {version('predawn')}")
    subparsers = top.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    options = parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        print(end="", flush=True)
    except BrokenPipeError:  # nobody reads on, as after `| head`; what is still held back must go somewhere at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    return status


if __name__ == "__main__":
    sys.exit(main())
