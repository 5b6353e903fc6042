"""`predawn exchanges`: what the plugin `record` wrote, straight from the store. `predawn replay` is beside it."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from predawn.proxy import history
from predawn.proxy.commands import replay
from predawn.proxy.store import Store, StoreError, open_store, sqlite_path

if TYPE_CHECKING:
    from argparse import _SubParsersAction

_HEAD = ("TIME (UTC)", "ID", "MODEL", "UPSTREAM", "STATUS", "OUTCOME", "PROMPT", "OUTPUT", "SECONDS", "USD")


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `exchanges` command, and `replay`."""
    parser = subparsers.add_parser(
        "exchanges",
        help="list recorded exchanges, or show one with its ledger, calls, decisions and notes",
        description="Read what the plugin `record` wrote; no server needs to run.",
    )
    parser.add_argument("action", nargs="?", choices=("list", "show"), default="list", help="list (default) or show")
    parser.add_argument("id", nargs="?", metavar="ID", help="which exchange to show")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings file that names the state")
    parser.add_argument("--tenant", default="default", help="whose exchanges (default)")
    parser.add_argument("--limit", type=_positive, default=20, metavar="N", help="list the newest N (20)")
    parser.add_argument("--json", action="store_true", help="list as JSON, one exchange per line")
    parser.set_defaults(run=run)
    replay.add_parser(subparsers)


def run(options: argparse.Namespace) -> int:
    """Print what was asked for; return the exit status."""
    from predawn.proxy.settings_file import SettingsError, load

    if options.action == "show" and options.id is None:
        print("which one? `predawn exchanges show ID`; `predawn exchanges` lists them", file=sys.stderr)
        return 2
    if options.action == "list" and options.id is not None:
        print(f"`list` takes no ID; did you mean `predawn exchanges show {options.id}`?", file=sys.stderr)
        return 2
    try:
        return asyncio.run(_run(options, load(options.config).state))
    except (SettingsError, StoreError) as exc:
        print(exc, file=sys.stderr)
        return 1


async def _run(options: argparse.Namespace, state: str) -> int:
    path = sqlite_path(state)
    if path is not None and not path.exists():
        print(f"nothing is recorded yet: {path} does not exist", file=sys.stderr)
        return 0 if options.action == "list" else 1
    store = await open_store(state)
    try:
        return await (_show if options.action == "show" else _list)(options, store)
    finally:
        await store.aclose()


async def _list(options: argparse.Namespace, store: Store) -> int:
    rows = await history.page(store, options.tenant, limit=options.limit)
    if options.json:
        for row in rows:
            print(json.dumps(history.summary(row)))
        return 0
    if not rows:
        print(f"nothing is recorded for the tenant {options.tenant}; is the plugin `record` active?", file=sys.stderr)
        return 0
    _print_table([_HEAD, *(_line(row) for row in rows)])
    return 0


async def _show(options: argparse.Namespace, store: Store) -> int:
    row = await history.find(store, options.tenant, options.id)
    if row is None:
        print(f"the tenant {options.tenant} has no exchange {options.id}", file=sys.stderr)
        return 1
    print(json.dumps(history.detail(row), indent=2, ensure_ascii=False))
    return 0


def _line(row: history.Row) -> tuple[str, ...]:
    return (
        datetime.fromtimestamp(row["arrived_at"], UTC).strftime("%Y-%m-%d %H:%M:%S"),
        row["id"],
        row["model"],
        row["upstream"] or "-",
        str(row["status"]),
        row["outcome"],
        str(row["prompt"]),
        f"{row['output']}{'~' if row['estimated'] else ''}",
        f"{row['total_s']:.3f}",
        f"{row['spend_usd']:.6f}",
    )


def _print_table(lines: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(_printable(line, widths)).rstrip())


def _printable(line: Iterable[str], widths: Iterable[int]) -> Iterable[str]:
    """Cells of one width, without anything that could move the terminal's cursor: clients choose models' names."""
    for cell, width in zip(line, widths, strict=True):
        yield "".join(c if c.isprintable() else "?" for c in cell).ljust(width)


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < len(text) < 10 or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)
