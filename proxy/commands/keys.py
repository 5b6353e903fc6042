"""`predawn keys`: make, list and revoke client keys, and see what they used."""

from __future__ import annotations

import argparse
import asyncio
import math
import re
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from predawn.proxy.keys import NANO, Digester, Key, create_key, list_keys, revoke_key
from predawn.proxy.secret import find_or_make_secret
from predawn.proxy.spend import read_usage
from predawn.proxy.store import Store, StoreError, open_store, sqlite_path

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from predawn.proxy.settings import Settings

Command: TypeAlias = "Callable[[argparse.Namespace, Settings, Store], Awaitable[int]]"

_SPAN = re.compile(r"(\d{1,6})([hdw])")
_SPAN_S = {"h": 3600, "d": 86_400, "w": 604_800}


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `keys` command."""
    parser = subparsers.add_parser(
        "keys",
        help="make, list and revoke client keys, and see what they used",
        description="Client keys say who may use the server, and how much. A running server follows within 2 seconds.",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    _add_create(actions)
    listing = _add_action(actions, "list", _list, "list all keys")
    listing.add_argument("--tenant", help="only the keys of this tenant")
    revoking = _add_action(actions, "revoke", _revoke, "make a key useless")
    revoking.add_argument("id", metavar="ID", help="the key's id, as `predawn keys list` shows it")
    usage = _add_action(actions, "usage", _usage, "show requests, tokens and dollars by day and key")
    usage.add_argument("--tenant", help="only this tenant")
    usage.add_argument("--days", type=_positive, default=30, help="how many days back, today included (30)")


def _add_create(actions: _SubParsersAction[argparse.ArgumentParser]) -> None:
    create = _add_action(
        actions, "create", _create, "make a key; it is printed once, as the last line of standard output"
    )
    create.add_argument("name", metavar="NAME", type=_name, help="who or what will use it")
    create.add_argument("--tenant", type=_name, default="default", help="whose data it sees (default)")
    create.add_argument("--models", type=_names, metavar="A,B", help="the only models it may ask for")
    create.add_argument("--rpm", type=_positive, metavar="N", help="requests per minute")
    create.add_argument("--tpm", type=_positive, metavar="N", help="tokens per minute, prompts and answers together")
    create.add_argument("--concurrency", type=_positive, metavar="N", help="requests running at a time, per process")
    create.add_argument("--usd-per-day", type=_dollars, metavar="USD", help="dollars per day (UTC)")
    create.add_argument("--expires", type=_expiry, metavar="WHEN", help="30d, 12h, 4w, or a date such as 2030-12-31")


def _add_action(
    actions: _SubParsersAction[argparse.ArgumentParser], name: str, command: Command, text: str
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings file that names the state")
    parser.set_defaults(run=run, command=command)
    return parser


def run(options: argparse.Namespace) -> int:
    """Do what was asked; return the exit status."""
    from predawn.proxy.settings_file import SettingsError, load

    try:
        return asyncio.run(_run(options, load(options.config)))
    except (SettingsError, StoreError) as exc:
        print(exc, file=sys.stderr)
        return 1


async def _run(options: argparse.Namespace, settings: Settings) -> int:
    path = sqlite_path(settings.state)
    if path is not None and options.command is not _create and not path.exists():
        print(f"there are no keys yet: {path} does not exist", file=sys.stderr)
        return 1 if options.command is _revoke else 0
    store = await open_store(settings.state)
    try:
        command: Command = options.command
        return await command(options, settings, store)
    finally:
        await store.aclose()


async def _create(options: argparse.Namespace, settings: Settings, store: Store) -> int:
    is_first = not await list_keys(store)
    draft = Key(
        id="",
        name=options.name,
        tenant=options.tenant,
        models=options.models,
        requests_per_minute=options.rpm,
        tokens_per_minute=options.tpm,
        concurrency=options.concurrency,
        nano_usd_per_day=options.usd_per_day,
        expires_at=options.expires,
        created_at=time.time(),
    )
    key, presented = await create_key(store, Digester(find_or_make_secret(settings)), draft)
    words = [f"made {key.id} for {key.name} (tenant {key.tenant}): {_limits(key)}"]
    if settings.access.keys == "off":
        words.append("note: the settings say `keys: off`, so no client needs it")
    elif is_first:
        words.append("from now on every client needs a key, those on this machine too")
    words.append("this is the key; it is not stored and cannot be shown again:")
    print(*words, sep="\n", file=sys.stderr, flush=True)
    print(presented)
    return 0


async def _list(options: argparse.Namespace, _settings: Settings, store: Store) -> int:
    now = time.time()
    keys = [key for key in await list_keys(store) if options.tenant in {None, key.tenant}]
    rows = [(key.id, key.name, key.tenant, _day(key.created_at), _state(key, now), _limits(key)) for key in keys]
    _print_table(("ID", "NAME", "TENANT", "MADE", "STATE", "LIMITS"), rows)
    return 0


async def _revoke(options: argparse.Namespace, _settings: Settings, store: Store) -> int:
    if await revoke_key(store, options.id, time.time()):
        print(f"revoked {options.id}; a running server follows within 2 seconds", file=sys.stderr)
        return 0
    known = {key.id for key in await list_keys(store)}
    why = "was revoked before" if options.id in known else "is not a key's id; `predawn keys list` shows them"
    print(f"{options.id} {why}", file=sys.stderr)
    return 1


async def _usage(options: argparse.Namespace, _settings: Settings, store: Store) -> int:
    since = datetime.now(UTC).date() - timedelta(days=options.days - 1)
    names = {key.id: key.name for key in await list_keys(store)}
    found = await read_usage(store, tenant=options.tenant, since=since)
    rows = [
        (
            row.day.isoformat(),
            row.tenant,
            row.key_id or "-",
            names.get(row.key_id, "-"),
            str(row.usage.requests),
            str(row.usage.prompt_tokens),
            str(row.usage.cached_prompt_tokens),
            str(row.usage.output_tokens),
            f"{row.usage.spend_nano_usd / NANO:.6f}",
        )
        for row in found
    ]
    _print_table(("DAY", "TENANT", "KEY", "NAME", "REQUESTS", "PROMPT", "CACHED", "OUTPUT", "USD"), rows)
    return 0


def _limits(key: Key) -> str:
    parts = [
        f"models {','.join(sorted(key.models))}" if key.models is not None else "",
        f"{key.requests_per_minute} requests/min" if key.requests_per_minute is not None else "",
        f"{key.tokens_per_minute} tokens/min" if key.tokens_per_minute is not None else "",
        f"{key.concurrency} at a time" if key.concurrency is not None else "",
        f"${key.nano_usd_per_day / NANO:g}/day" if key.nano_usd_per_day is not None else "",
        f"until {_minute(key.expires_at)}" if key.expires_at is not None else "",
    ]
    return ", ".join(part for part in parts if part) or "no limits"


def _state(key: Key, now: float) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= now else "active"


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).date().isoformat()


def _minute(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _print_table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 1 << 31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _dollars(text: str) -> int:
    try:
        usd = float(text.removeprefix("$"))
    except ValueError:
        usd = math.nan
    if not 0 < usd <= 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount of dollars such as 2.50")
    return max(1, round(usd * NANO))


def _expiry(text: str) -> float:
    """Seconds since the epoch: a span from now, or the end of a day in UTC."""
    if match := _SPAN.fullmatch(text):
        at = time.time() + int(match[1]) * _SPAN_S[match[2]]
    else:
        try:
            at = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC).timestamp() + 86_400
        except ValueError as exc:
            raise argparse.ArgumentTypeError(f"{text!r} is neither a span (30d, 12h, 4w) nor a date") from exc
    if not time.time() < at < 253_402_300_800:  # the year 10000
        raise argparse.ArgumentTypeError(f"{text!r} does not lie in the future")
    return at


def _name(text: str) -> str:
    if not text.strip() or not text.isprintable() or len(text) > 200:
        raise argparse.ArgumentTypeError("a name consists of 1 to 200 printable characters")
    return text


def _names(text: str) -> frozenset[str]:
    return frozenset(_name(part.strip()) for part in text.split(","))
