"""`predawn plugins`: what is installed, what is active, in which order, with which settings."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction
    from collections.abc import Iterator

    from predawn.proxy.loading import Found

HOOK_MARK = "predawn_impl"
"""The attribute that `@hookimpl` leaves on a method."""


def add_parser(subparsers: _SubParsersAction[ArgumentParser]) -> None:
    """Add the `plugins` command."""
    parser = subparsers.add_parser(
        "plugins",
        help="list plugins: found, active, in which order, with which settings",
        description="List every plugin that is installed; those the settings file names are numbered in their order.",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings file")
    parser.add_argument(
        "--json", action="store_true", help="everything as JSON, with the schema of each plugin's settings"
    )
    parser.set_defaults(run=run)


def run(options: Namespace) -> int:
    """Print the list; 1 if a settings file is broken or a plugin cannot be loaded."""
    from predawn.proxy import loading
    from predawn.proxy.dispatch import PluginError
    from predawn.proxy.settings_file import SettingsError, load

    try:
        entries = load(options.config, check_plugins=loading.check).plugins if options.config else ()
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return 1
    order = {entry.name: number for number, entry in enumerate(entries, 1)}
    rows: list[dict[str, Any]] = []
    failed = False
    for found in sorted(loading.find().values(), key=lambda found: (order.get(found.name, len(order) + 1), found.name)):
        try:
            rows.append(_row(found, order.get(found.name)))
        except PluginError as exc:
            failed = True
            print(f"predawn: {exc}", file=sys.stderr)
    print(json.dumps(rows, indent=1) if options.json else "\n".join(_lines(rows)))
    return int(failed)


def _row(found: Found, position: int | None) -> dict[str, Any]:
    kind = found.load()
    hooks = [name for name in dir(kind) if hasattr(getattr(kind, name, None), HOOK_MARK)]
    return {
        "name": found.name,
        "origin": found.origin,
        "active": position is not None,
        "position": position,
        "hooks": hooks,
        "about": (kind.__doc__ or "").strip().partition("\n")[0],
        "settings": kind.settings_type.model_json_schema(),
    }


def _lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        place = f"{row['position']}." if row["active"] else "-"
        yield f"{place:>3} {row['name']}  ({row['origin']}{'' if row['active'] else ', not active'})"
        if row["about"]:
            yield f"      {row['about']}"
        yield f"      hooks: {', '.join(row['hooks']) or 'none'}"
        for name, schema in row["settings"].get("properties", {}).items():
            default = (
                "required"
                if name in row["settings"].get("required", ())
                else f"default {json.dumps(schema.get('default'))}"
            )
            yield f"      {name} ({default}): {schema.get('description', '')}"
