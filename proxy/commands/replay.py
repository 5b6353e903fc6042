"""`predawn replay`: send a recorded exchange again, and show what is different."""

from __future__ import annotations

import argparse
import asyncio
import difflib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec

from predawn.proxy import history
from predawn.proxy.store import StoreError, open_store, sqlite_path

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from predawn.proxy.exchange import RouteName
    from predawn.proxy.settings import Settings

PATHS: dict[str, str] = {
    "chat": "/chat/completions",
    "completions": "/completions",
    "responses": "/responses",
    "messages": "/messages",
}
SAME, DIFFERENT, TROUBLE = 0, 1, 2
"""Exit statuses, as those of `diff`."""


class ReplayError(Exception):
    """An exchange that cannot be sent again; the message says why."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run of an exchange: what was said, and what it took."""

    status: int
    prompt: int | None
    output: int | None
    seconds: float
    lanes: list[dict[str, Any]]


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `replay` command."""
    parser = subparsers.add_parser(
        "replay",
        help="send a recorded exchange again and show the difference",
        description="Send a recorded request again, with the same body, seeds and injected notes, to a running server, "
        "and compare the answers. Needs `record_content: true`. The exit status is that of diff: 0 the same text, "
        "1 another one, 2 trouble.",
    )
    parser.add_argument("id", metavar="ID", help="the exchange, as `predawn exchanges` shows it")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings file that names the state")
    parser.add_argument("--tenant", default="default", help="whose exchange it is (default)")
    parser.add_argument("--base-url", metavar="URL", help="where to send it, /v1 included; the settings' own server")
    parser.add_argument("--key", help="client key; $PREDAWN_KEY when absent")
    parser.add_argument("--timeout", type=float, default=600.0, metavar="S", help="seconds to wait at most (600)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Send it, print the difference, return the exit status."""
    from predawn.proxy.settings_file import SettingsError, load

    try:
        settings = load(options.config)
        row = asyncio.run(_find(settings.state, options.tenant, options.id))
        before, request = _recorded(row)
        base_url = options.base_url or _own_url(settings)
        key = options.key or os.environ.get("PREDAWN_KEY")
        after = asyncio.run(send(row, request, base_url, key, options.timeout))
    except (SettingsError, StoreError, ReplayError) as exc:
        print(exc, file=sys.stderr)
        return TROUBLE
    print("\n".join(report(before, after)))
    return SAME if _texts(before) == _texts(after) and before.status == after.status else DIFFERENT


async def _find(state: str, tenant: str, ident: str) -> history.Row:
    path = sqlite_path(state)
    if path is not None and not path.exists():
        raise ReplayError(f"nothing is recorded yet: {path} does not exist")
    store = await open_store(state)
    try:
        row = await history.find(store, tenant, ident)
    finally:
        await store.aclose()
    if row is None:
        raise ReplayError(f"the tenant {tenant} has no exchange {ident}")
    return row


def _recorded(row: history.Row) -> tuple[Outcome, dict[str, Any]]:
    """What happened then, and the request to send again."""
    content = history.content(row)
    if content is None:
        raise ReplayError("its content was not recorded; set `record_content: true` for the plugin `record`")
    if row["route"] not in PATHS:
        raise ReplayError(f"requests to {row['route']} cannot be replayed")
    request = content.get("request")
    if not isinstance(request, dict):
        raise ReplayError("its request was not recorded: larger than `max_content_bytes`")
    lanes = content.get("reply") or []
    return Outcome(row["status"], row["prompt"], row["output"], row["total_s"], lanes), request


def _own_url(settings: Settings) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.server.host, settings.server.host)  # noqa: S104 - compared
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.server.port}/v1"


async def send(
    row: history.Row, request: Mapping[str, Any], base_url: str, key: str | None, timeout_s: float
) -> Outcome:
    """Send a recorded request. Raises `ReplayError` if no answer comes."""
    import aiohttp

    headers = {
        "Content-Type": "application/json",
        # A stored answer would prove nothing; and what was injected into this body must not be injected again.
        "x-predawn-cache": "false",
        "x-predawn-replay": row["id"],
        **({"Authorization": f"Bearer {key}"} if key else {}),
        **({"anthropic-version": "2023-06-01"} if row["route"] == "messages" else {}),
    }
    url = base_url.rstrip("/") + PATHS[row["route"]]
    began = perf_counter()
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s)) as session,
            session.post(url, data=msgspec.json.encode(request), headers=headers, allow_redirects=False) as response,
        ):
            body = await response.read()
            return _read(body, response.status, response.content_type, row["route"], perf_counter() - began)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as exc:
        raise ReplayError(f"{url} does not answer: {exc or type(exc).__name__}") from exc


def _read(body: bytes, status: int, content_type: str, route: RouteName, seconds: float) -> Outcome:
    from predawn.proxy.wire.fold import BodyChunk
    from predawn.proxy.wire.openai import usage_of_body, usage_of_tail
    from predawn.proxy.wire.sse import EventSplitter, event_chunk
    from predawn.proxy.wire.transcript import Transcript

    transcript = Transcript(route)
    if content_type == "text/event-stream":
        splitter = EventSplitter()
        chunks = [event_chunk(event) for event in (*splitter.feed(body), splitter.rest()) if event]
        usage = usage_of_tail(body)
    else:
        chunks = [BodyChunk(body)]
        usage = usage_of_body(body)
    for chunk in chunks:
        if chunk.data is not None:
            transcript.read(chunk.data)
    prompt = usage.prompt if usage is not None else None
    output = usage.output if usage is not None else None
    return Outcome(status, prompt, output, seconds, transcript.lanes)


def _texts(outcome: Outcome) -> dict[tuple[int, str, int], str]:
    return {(lane["group"], lane["kind"], lane["part"]): lane["text"] for lane in outcome.lanes if lane["text"]}


def report(before: Outcome, after: Outcome) -> Iterator[str]:
    """The two runs side by side, then a unified diff of each text that changed."""
    yield f"{'':10}{'then':>12}{'now':>12}{'difference':>12}"
    for name in ("status", "prompt", "output", "seconds"):
        then, now = getattr(before, name), getattr(after, name)
        yield f"{name:10}{_number(then):>12}{_number(now):>12}{_change(name, then, now):>12}"
    old, new = _texts(before), _texts(after)
    if old == new:
        yield "the text is the same"
    for lane in {**old, **new}:
        if old.get(lane) != new.get(lane):
            yield f"text of {lane[1]} {lane[0]}" + (f" part {lane[2]}" if lane[2] else "")
            then_lines, now_lines = _lines(old.get(lane, "")), _lines(new.get(lane, ""))
            yield from difflib.unified_diff(then_lines, now_lines, "then", "now", lineterm="")


def _lines(text: str) -> list[str]:
    """Lines without anything that could command the terminal: a model wrote them."""
    return ["".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in line) for line in text.splitlines()]


def _number(value: float | None) -> str:
    if value is None:
        return "?"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _change(name: str, then: float | None, now: float | None) -> str:
    if name == "status" or then is None or now is None:
        return ""
    change = now - then
    return f"{change:+.3f}" if isinstance(change, float) else f"{change:+d}"
