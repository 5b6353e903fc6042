"""`predawn serve`: the proxy itself."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction
    from collections.abc import Callable, Iterator

    from predawn.proxy.settings import Settings

NOTHING_TO_SERVE = (
    "there is no upstream to serve from. Name one in the settings file, or leave out --config: then OPENAI_BASE_URL is "
    "served, or else the model that comes with Predawn."
)
BUNDLED_FAILED = (
    "this was to be the model that comes with Predawn. To serve another, name it in a settings file (`predawn serve "
    "--config predawn.yaml`), or set OPENAI_BASE_URL and OPENAI_API_KEY."
)


def add_parser(subparsers: _SubParsersAction[ArgumentParser]) -> None:
    """Add the `serve` command."""
    parser = subparsers.add_parser(
        "serve",
        help="run the proxy",
        description="Serve the models of the settings file. SIGHUP reads it again, SIGTERM stops in good order.",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="settings file; without it OPENAI_BASE_URL, or else the bundled model predawn-tiny",
    )
    parser.add_argument("--host", help="address to listen on, instead of the file's")
    parser.add_argument("--port", type=int, help="port of the API, instead of the file's")
    parser.add_argument("--workers", type=int, help="processes, instead of the file's")
    parser.add_argument("--worker", type=int, default=0, help=argparse_suppress())
    parser.set_defaults(run=run)


def argparse_suppress() -> str:
    """The mark by which argparse hides an option: workers are started with it by their supervisor."""
    from argparse import SUPPRESS

    return SUPPRESS


def run(options: Namespace) -> int:
    """Serve until stopped; 1 and a message if it cannot."""
    from predawn.proxy.dispatch import HookError
    from predawn.proxy.problems import SettingsError

    load = loader(options)
    try:
        settings = load()
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return 1
    if not settings.upstreams:
        print(f"predawn: {NOTHING_TO_SERVE}", file=sys.stderr)
        return 1
    if settings.server.workers > 1 and options.worker == 0:
        from predawn.proxy.workers import supervise

        for line in engines_notice(settings):
            print(line, file=sys.stderr)
        return supervise(settings, sys.argv[1:])
    from predawn.proxy import logs
    from predawn.proxy.server import StartErrors, serve_until_stopped

    logs.configure(settings.server.log, secrets=logs.secrets_in(settings))
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        try:
            runner.run(serve_until_stopped(settings, load, worker=max(0, options.worker - 1)))
        except StartErrors as exc:
            cause = exc.__cause__ if isinstance(exc, HookError) else None
            print(f"predawn: {exc}{f': {cause}' if cause is not None else ''}", file=sys.stderr)
            if options.config is None and any(upstream.kind == "local" for upstream in settings.upstreams):
                print(f"predawn: {BUNDLED_FAILED}", file=sys.stderr)
            return 1
    return 0


def engines_notice(settings: Settings) -> Iterator[str]:
    """What several workers mean for models on this machine: each loads its own."""
    count = settings.server.workers
    for upstream in settings.upstreams:
        if upstream.kind == "local":
            yield f"predawn: each of {count} workers loads the model of upstream {upstream.name!r} for itself"


def loader(options: Namespace) -> Callable[[], Settings]:
    """Reads the settings, now and at each reload, with what the command line says on top."""
    from predawn.proxy import loading
    from predawn.proxy.settings_file import load

    def read() -> Settings:
        settings = load(options.config, check_plugins=loading.check)
        given = {name: getattr(options, name) for name in ("host", "port", "workers")}
        over = {name: value for name, value in given.items() if value is not None}
        if not over:
            return settings
        server = type(settings.server).model_validate({**settings.server.model_dump(), **over})
        return settings.model_copy(update={"server": server})

    return read


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it exists."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
