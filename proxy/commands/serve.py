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
    from predawn.proxy.workers.leash import Leash

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
        description="Serve the models of the settings file. SIGHUP reads it again, SIGTERM stops in good order; with "
        "several workers SIGUSR2 restarts them one by one.",
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
    from predawn.proxy.problems import SettingsError

    leash = None
    if options.worker:
        from predawn.proxy.workers.leash import Leash

        try:
            leash = Leash.from_stdin()
        except (OSError, EOFError):
            print("predawn: --worker is for a supervisor to say, which --workers starts", file=sys.stderr)
            return 1
    load = loader(options, leash)
    try:
        settings = load()
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return 1
    if not settings.upstreams:
        print(f"predawn: {NOTHING_TO_SERVE}", file=sys.stderr)
        return 1
    if settings.server.workers > 1 and leash is None:
        return _supervise(options)
    return _serve(options, settings, load, leash)


def _serve(options: Namespace, settings: Settings, load: Callable[[], Settings], leash: Leash | None) -> int:
    from predawn.proxy import logs
    from predawn.proxy.dispatch import HookError
    from predawn.proxy.server import StartErrors, serve_until_stopped

    logs.configure(settings.server.log, secrets=logs.secrets_in(settings))
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        try:
            runner.run(serve_until_stopped(settings, load, worker=max(0, options.worker - 1), leash=leash))
        except StartErrors as exc:
            cause = exc.__cause__ if isinstance(exc, HookError) else None
            print(f"predawn: {exc}{f': {cause}' if cause is not None else ''}", file=sys.stderr)
            if options.config is None and any(upstream.kind == "local" for upstream in settings.upstreams):
                print(f"predawn: {BUNDLED_FAILED}", file=sys.stderr)
            return 1
    return 0


def _supervise(options: Namespace) -> int:
    from predawn.proxy import logs
    from predawn.proxy.problems import SettingsError
    from predawn.proxy.settings_file import contents
    from predawn.proxy.workers.plan import Plan
    from predawn.proxy.workers.supervisor import supervise

    def read() -> Plan:
        raw = contents(options.config) if options.config is not None else b""
        return Plan.read(raw, loader(options, raw=raw)())

    try:
        plan = read()
        for line in engines_notice(plan.settings):
            print(line, file=sys.stderr)
        logs.configure(plan.settings.server.log, secrets=logs.secrets_in(plan.settings))
        return asyncio.run(supervise([sys.executable, "-m", "predawn.proxy.cli", *sys.argv[1:]], plan, read))
    except (SettingsError, OSError) as exc:
        print(f"predawn: {exc}", file=sys.stderr)
        return 1


def engines_notice(settings: Settings) -> Iterator[str]:
    """What several workers mean for models on this machine: each loads its own."""
    count = settings.server.workers
    for upstream in settings.upstreams:
        if upstream.kind == "local":
            yield f"predawn: each of {count} workers loads the model of upstream {upstream.name!r} for itself"


def loader(options: Namespace, leash: Leash | None = None, *, raw: bytes | None = None) -> Callable[[], Settings]:
    """Reads the settings, now and at each reload, with what the command line says on top.

    The file's content is what the supervisor handed down, or `raw`, where one of them is given.
    """
    from predawn.proxy import loading
    from predawn.proxy.settings_file import load

    def read() -> Settings:
        settings = load(options.config, check_plugins=loading.check, raw=leash.raw if leash is not None else raw)
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
