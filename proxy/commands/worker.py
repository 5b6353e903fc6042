"""`predawn worker`: does the jobs that servers submit, and serves nothing itself."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction
    from collections.abc import Callable

    from predawn.proxy.settings import Settings


def add_parser(subparsers: _SubParsersAction[ArgumentParser]) -> None:
    """Add the `worker` command."""
    parser = subparsers.add_parser(
        "worker",
        help="do background jobs, without serving",
        description="Do the jobs that the plugins of the settings file submit, for all servers that share its state. "
        "SIGHUP reads the file again; SIGTERM hands unfinished jobs back and ends.",
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="settings file, as the servers use")
    parser.add_argument("--concurrency", type=int, help="jobs side by side, instead of the file's")
    parser.add_argument(
        "--admin-port", type=int, default=0, help="port of /metrics, /health and /ready; a free one when absent"
    )
    parser.set_defaults(run=run)


def run(options: Namespace) -> int:
    """Work until stopped; 1 and a message if it cannot."""
    from predawn.proxy import logs
    from predawn.proxy.commands.serve import loop_factory
    from predawn.proxy.problems import SettingsError
    from predawn.proxy.server import StartErrors, serve_until_stopped

    load = loader(options)
    try:
        settings = load()
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return 1
    logs.configure(settings.server.log, secrets=logs.secrets_in(settings))
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        try:
            runner.run(serve_until_stopped(settings, load, api=False))
        except StartErrors as exc:
            print(f"predawn: {exc}", file=sys.stderr)
            return 1
    return 0


def loader(options: Namespace) -> Callable[[], Settings]:
    """Reads the settings, now and at each reload, as a worker needs them."""
    from predawn.proxy import loading
    from predawn.proxy.settings import JobSettings, ServerSettings
    from predawn.proxy.settings_file import load

    def read() -> Settings:
        settings = load(options.config, check_plugins=loading.check)
        # nobody waits for an answer here, so there is nothing to serve for a while after SIGTERM
        over = {"admin_port": options.admin_port, "drain_grace_s": 0, "workers": 1}
        server = ServerSettings.model_validate({**settings.server.model_dump(), **over})
        jobs = settings.jobs
        if options.concurrency is not None:
            jobs = JobSettings.model_validate({**jobs.model_dump(), "concurrency": options.concurrency})
        return settings.model_copy(update={"server": server, "jobs": jobs})

    return read
