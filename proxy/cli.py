"""The command line: `predawn COMMAND`. Each command is a module of `commands/` with `add_parser`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version

from predawn.proxy.commands import check, contexts, demo, exchanges, kernels, keys, plugins, serve, upstream, worker

COMMANDS = (serve, worker, demo, check, plugins, keys, exchanges, contexts, upstream, kernels)


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
    status: int = options.run(options)
    return status


if __name__ == "__main__":
    sys.exit(main())
