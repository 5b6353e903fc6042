"""`predawn contexts`: register contexts at a running server, and see what it makes of them while nobody waits."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote, urlencode, urlsplit

from predawn.proxy.commands.contexts_client import Client, ServerError, printable

if TYPE_CHECKING:
    from argparse import _SubParsersAction

Command: TypeAlias = "Callable[[argparse.Namespace, Client], int]"

_HEAD = ("ID", "VERSION", "SOURCE", "STATE", "MODEL", "TOKENS", "USES", "EXPIRES (UTC)")
_BAR = 24
_STAGES = ("queued", "consolidate", "check", "anticipate", "warm")
_UNDER_WAY = frozenset({"queued", "sleeping", "checking"})


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `contexts` command."""
    parser = subparsers.add_parser(
        "contexts",
        help="register contexts to think about beforehand, and see how far that is",
        description="Talk to a running server with the plugin `sleep` about its contexts: texts and beginnings of "
        "conversations that it thinks about before the question comes.",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    add = _add_action(actions, "add", _add, "register a context, or give one a new version")
    add.add_argument("file", metavar="FILE", help="a text, or messages if it ends in .json; - reads a text from stdin")
    add.add_argument("--id", help="its name; made from the content when absent")
    add.add_argument("--model", help="the model it is for; any when absent")
    add.add_argument("--ttl", type=float, metavar="S", help="forget it after so many seconds")
    add.add_argument(
        "--sleep", choices=("always", "worthwhile", "off"), help="when to sleep on it; as the server has it"
    )
    add.add_argument("--watch", action="store_true", help="sleep on it now, and show how far that is")
    listing = _add_action(actions, "list", _list, "list contexts, newest first")
    listing.add_argument("--source", choices=("registered", "discovered"), help="only those that came so")
    listing.add_argument("--limit", type=_positive, default=20, metavar="N", help="the newest N (20)")
    listing.add_argument("--json", action="store_true", help="as JSON, one context per line")
    show = _add_action(actions, "show", _show, "show a context, its progress and its notes as JSON")
    show.add_argument("id", metavar="ID", help="which context")
    sleep = _add_action(actions, "sleep", _sleep, "sleep on a context as soon as nobody waits")
    sleep.add_argument("id", metavar="ID", help="which context")
    sleep.add_argument("--passes", type=_positive, metavar="N", help="think it over so many times at most")
    sleep.add_argument("--budget", type=_positive, metavar="TOKENS", help="spend so many tokens at most")
    sleep.add_argument("--watch", action="store_true", help="wait until it is done, and show how far it is")
    forget = _add_action(actions, "forget", _forget, "delete contexts and all that came of them")
    forget.add_argument("ids", metavar="ID", nargs="+", help="which contexts")


def _add_action(
    actions: _SubParsersAction[argparse.ArgumentParser], name: str, command: Command, text: str
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("--url", metavar="URL", help="the server, /v1 included; $PREDAWN_URL or the settings' own")
    parser.add_argument("--key", help="client key; $PREDAWN_KEY when absent")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings file that says where the server is")
    parser.set_defaults(run=run, command=command)
    return parser


def run(options: argparse.Namespace) -> int:
    """Do what was asked; 1 if the server refused it or does not answer, or sleep failed, 2 if FILE cannot be read."""
    from predawn.proxy.settings_file import SettingsError

    try:
        client = Client(_url(options), options.key or os.environ.get("PREDAWN_KEY"))
        command: Command = options.command
        return command(options, client)
    except (SettingsError, ServerError) as exc:
        print(exc, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130


def _url(options: argparse.Namespace) -> str:
    url: str | None = options.url or os.environ.get("PREDAWN_URL")
    if url is None:
        from predawn.proxy.settings_file import load

        server = load(options.config).server
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(server.host, server.host)  # noqa: S104 - compared
        return f"http://{f'[{host}]' if ':' in host else host}:{server.port}/v1"
    if urlsplit(url).scheme not in {"http", "https"}:
        raise ServerError(f"{url!r} is no URL of a server; write http://HOST:PORT/v1")
    return url.rstrip("/")


def _add(options: argparse.Namespace, client: Client) -> int:
    try:
        content = _read(options.file)
    except (OSError, ValueError) as exc:
        print(f"{options.file} cannot be read: {exc}", file=sys.stderr)
        return 2
    given = {"id": options.id, "model": options.model, "ttl_s": options.ttl, "sleep": options.sleep}
    context = client.call("POST", "", content | {name: value for name, value in given.items() if value is not None})
    came = {"created": "registered", "changed": "has a new version", "same": "is there as it is"}
    what = came.get(context.get("came", ""), "registered")
    print(f"{what}: version {context['version']}, about {context['tokens']} tokens", file=sys.stderr)
    print(printable(context["id"]), flush=True)
    if not options.watch:
        return 0
    return watch(client, context["id"], client.call("POST", f"/{_quoted(context['id'])}/sleep"))


def _read(name: str) -> dict[str, Any]:
    """The members of the request that FILE holds. Raises `OSError` or `ValueError`."""
    if name == "-":
        return {"text": sys.stdin.read()}
    text = Path(name).read_text(encoding="utf-8")
    if not name.endswith(".json"):
        return {"text": text}
    try:
        decoded = json.loads(text)
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc
    if isinstance(decoded, list):
        return {"messages": decoded}
    if isinstance(decoded, dict) and ("messages" in decoded or "text" in decoded):
        return decoded
    raise ValueError("a JSON file holds a list of messages, or an object with messages or text")


def _list(options: argparse.Namespace, client: Client) -> int:
    found: list[dict[str, Any]] = []
    before: str | None = None
    while len(found) < options.limit:
        query = {"limit": min(100, options.limit - len(found)), "before": before, "source": options.source}
        page = client.call("GET", "?" + urlencode({name: value for name, value in query.items() if value is not None}))
        found += page["data"]
        before = page["last_id"]
        if not page["has_more"]:
            break
    if options.json:
        for context in found:
            print(json.dumps(context))
        return 0
    if not found:
        print("there are no contexts", file=sys.stderr)
        return 0
    _print_table([_HEAD, *(_line(context) for context in found)])
    return 0


def _show(options: argparse.Namespace, client: Client) -> int:
    context = client.call("GET", f"/{_quoted(options.id)}")
    written = client.call("GET", f"/{_quoted(options.id)}/notes")
    context |= {"notes": written["notes"], "anticipated": written["anticipated"]}
    print(json.dumps(context, indent=2, ensure_ascii=not sys.stdout.isatty()))
    return 0


def _sleep(options: argparse.Namespace, client: Client) -> int:
    wished = {"max_passes": options.passes, "budget_tokens": options.budget}
    body = {name: value for name, value in wished.items() if value is not None}
    context = client.call("POST", f"/{_quoted(options.id)}/sleep", body)
    if options.watch:
        return watch(client, options.id, context)
    print(f"{printable(options.id)} is {context['state']}; `predawn contexts show` tells more", file=sys.stderr)
    return 0


def _forget(options: argparse.Namespace, client: Client) -> int:
    status = 0
    for ident in options.ids:
        try:
            client.call("DELETE", f"/{_quoted(ident)}")
            print(f"forgot {printable(ident)} and all that came of it", file=sys.stderr)
        except ServerError as exc:
            print(exc, file=sys.stderr)
            status = 1
    return status


def watch(client: Client, ident: str, context: dict[str, Any], *, pause: Callable[[float], None] = time.sleep) -> int:
    """Draw a progress bar until nobody sleeps on the context any more; 1, and why, if that came to nothing."""
    drawn = ""
    while True:
        text = progress(context)
        if sys.stderr.isatty():
            print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)
        elif text != drawn:
            print(text, file=sys.stderr, flush=True)
        drawn = text
        if not _is_under_way(context):
            break
        pause(0.5)
        context = client.call("GET", f"/{_quoted(ident)}")
    if sys.stderr.isatty():
        print(file=sys.stderr)
    if context["state"] in {"asleep", "skipped"}:
        return 0
    ended = ((context.get("progress") or {}).get("decision") or {}).get("ended") or {}
    if ended.get("why"):
        print(f"{printable(str(ended.get('outcome')))}: {printable(str(ended['why']))}", file=sys.stderr)
    return 1


def _is_under_way(context: Mapping[str, Any]) -> bool:
    """Also where the notes are there and are used, and questions are still to be answered; not what was put off."""
    shown = context.get("progress") or {}
    if context["state"] == "asleep":
        return bool(shown.get("stage")) and (shown.get("waits") or {}).get("why") != "deferred"
    return context["state"] in _UNDER_WAY


def progress(context: Mapping[str, Any]) -> str:
    """One line: a bar, the stage, passes and tokens."""
    shown = context.get("progress") or {}
    state, stage = str(context["state"]), str(shown.get("stage") or "")
    passes, most = int(shown.get("pass_no") or 0), int(shown.get("max_passes") or 0)
    is_over = state == "asleep" and not stage
    share = 1.0 if is_over else _share(stage if stage in _STAGES else "queued", passes, most)
    filled = round(share * _BAR)
    words = [f"[{'#' * filled}{'.' * (_BAR - filled)}]", printable(state)]
    if stage:
        words.append(printable(stage))
    if most:
        words.append(f"pass {passes} of {most}")
    if tokens := int(shown.get("tokens") or 0):
        budget = int(shown.get("budget_tokens") or 0)
        words.append(f"{tokens} tokens" + (f" of {budget}" if budget else ""))
    if why := (shown.get("waits") or {}).get("why"):
        words.append(f"waits: {printable(str(why))}")
    return "  ".join(words)


def _share(stage: str, passes: int, most: int) -> float:
    """Passes take most of the time; what comes after them, the rest."""
    if stage == "queued":
        return 0.0
    if stage == "consolidate":
        return 0.7 * min(1.0, passes / most) if most else 0.0
    return {"check": 0.7, "anticipate": 0.85, "warm": 0.95}[stage]


def _line(context: Mapping[str, Any]) -> tuple[str, ...]:
    expires = context["expires_at"]
    until = "-" if expires is None else datetime.fromtimestamp(expires, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return (
        context["id"],
        str(context["version"]),
        context["source"],
        context["state"],
        context["model"] or "any",
        str(context["tokens"]),
        str(context["uses"]),
        until,
    )


def _print_table(lines: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(_cells(line, widths)).rstrip())


def _cells(line: Iterable[str], widths: Iterable[int]) -> Iterable[str]:
    for cell, width in zip(line, widths, strict=True):
        yield printable(cell).ljust(width)


def _quoted(ident: str) -> str:
    return quote(ident, safe="")


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < len(text) < 10 or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)
