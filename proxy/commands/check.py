"""`predawn check FILE`: every error of a settings file at once, or what it would serve."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction
    from collections.abc import Iterator

    from predawn.proxy.settings import ModelSettings, Settings


def add_parser(subparsers: _SubParsersAction[ArgumentParser]) -> None:
    """Add the `check` command."""
    parser = subparsers.add_parser(
        "check",
        help="show every error of a settings file, or what it would serve",
        description="Read a settings file as `predawn serve` would, plugins' settings included, without starting "
        "anything. Every error is shown with its line; the exit status is 1 if there are any.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="settings file, such as predawn.yaml")
    parser.set_defaults(run=run)


def run(options: Namespace) -> int:
    """Print the errors and return 1, or print a summary and return 0."""
    from predawn.proxy import loading, tls
    from predawn.proxy.settings_file import SettingsError, load

    try:
        settings = load(options.file, check_plugins=loading.check)
    except SettingsError as exc:
        count = len(exc.problems)
        print(exc, file=sys.stderr)
        print(f"{count} {'problem' if count == 1 else 'problems'}", file=sys.stderr)
        return 1
    if settings.server.tls is not None:
        try:
            tls.load(settings.server.tls)
        except tls.TlsError as exc:
            print(f"{options.file}: {exc.strerror}\n1 problem", file=sys.stderr)
            return 1
    print("\n".join([f"{options.file}: no problems", *summary(settings)]))
    return 0


def summary(settings: Settings) -> Iterator[str]:
    """What a server with these settings would do, line by line."""
    server = settings.server
    admin_port = server.port + 1000 if server.admin_port is None else server.admin_port
    https = " by HTTPS" if server.tls is not None else ""
    yield f"listens on {server.host}:{server.port}{https}, admin on {server.admin_host}:{admin_port}"
    yield "models" if settings.models else "no models"
    width = max((len(model.name) for model in settings.models), default=0)
    for model in settings.models:
        yield f"  {model.name:<{width}} → {_targets(model)}"
    yield "plugins, in this order" if settings.plugins else "no plugins"
    for number, entry in enumerate(settings.plugins, 1):
        yield f"  {number}. {entry.name}"
    used = {target.upstream for model in settings.models for target in model.all_targets}
    for upstream in settings.upstreams:
        if upstream.name not in used:
            yield f"note: no model uses the upstream {upstream.name}"


def _targets(model: ModelSettings) -> str:
    total = sum(target.weight for target in model.all_targets)
    parts: list[str] = []
    for target in model.all_targets:
        share = f" ({target.weight / total:.0%})" if len(model.all_targets) > 1 else ""
        parts.append(f"{target.upstream}{f' as {target.model}' if target.model else ''}{share}")
    fallbacks = f"; falls back to {', '.join(model.fallbacks)}" if model.fallbacks else ""
    return ", ".join(parts) + fallbacks
