"""`predawn upstream scripted`: a fake provider on a port, for plugin authors and load tests."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction

    from predawn.proxy.upstreams.scripted import Script

OPTIONS = ("text", "chunks", "interval_ms", "first_byte_ms", "error_rate", "errors", "seed", "models")


def add_parser(subparsers: _SubParsersAction[ArgumentParser]) -> None:
    """Add the `upstream` command."""
    parser = subparsers.add_parser("upstream", help="run a fake provider that answers by script")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    scripted = kinds.add_parser(
        "scripted",
        help="serve OpenAI's and Anthropic's APIs from a script",
        description="Serve OpenAI's and Anthropic's APIs from a script. GET /counts tells what was served, "
        "GET /last-request what came last, byte for byte. A request may ask for faults itself: "
        "`x-script: die_mid_event`, `x-script: status=429, retry-after=1`.",
    )
    add = scripted.add_argument
    add("--port", type=int, default=9000, help="port to listen on; 0 picks a free one (default: %(default)s)")
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add("--script", type=Path, metavar="FILE", help="YAML file with a script; options go before it")
    add("--text", help="what is answered; made up if absent")
    add("--chunks", type=int, help="tokens of a made-up answer, one chunk each (default: 16)")
    add("--interval-ms", type=float, help="pause between two tokens (default: 20)")
    add("--first-byte-ms", type=float, help="pause before the first byte (default: 0)")
    add("--error-rate", type=float, help="share of requests that fail (default: 0)")
    add("--errors", action="append", metavar="FAULT", help="how they fail; may be repeated (default: status=500)")
    add("--seed", type=int, help="decides made-up text and drawn errors (default: 1)")
    add("--model", action="append", dest="models", help="name in /v1/models; may be repeated (default: scripted)")
    scripted.set_defaults(run=run)


def run(options: Namespace) -> int:
    """Serve until SIGINT or SIGTERM; 2 if the script cannot be read, 1 if the port cannot be used."""
    from predawn.proxy.upstreams.scripted import ScriptError

    try:
        script = read_script(options)
    except (ScriptError, OSError) as exc:
        print(exc, file=sys.stderr)
        return 2
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(script, options.host, options.port))
    except OSError as exc:
        print(f"cannot listen on {options.host}:{options.port}: {exc.strerror}", file=sys.stderr)
        return 1
    return 0


def read_script(options: Namespace) -> Script:
    """The script of the file with the options over it. Raises `ScriptError` or `OSError`."""
    import yaml

    from predawn.proxy.problems import Problem
    from predawn.proxy.upstreams.scripted import Script, ScriptError

    data: Any = {}
    if options.script is not None:
        try:
            data = yaml.safe_load(options.script.read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as exc:
            raise ScriptError(Problem((str(options.script),), f"not valid YAML: {exc}")) from exc
        if not isinstance(data, dict):
            raise ScriptError(Problem((str(options.script),), "a script is a mapping of keys to values"))
    given = {name: value for name in OPTIONS if (value := getattr(options, name)) is not None}
    return Script.read({"interval_ms": 20, **data, **given})


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _serve(script: Script, host: str, port: int) -> None:
    from predawn.proxy.upstreams.scripted.server import scripted_server

    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, over.set)
    async with scripted_server(script, host=host, port=port, keep=10) as server:
        print(f"scripted upstream at {server.base_url}", flush=True)
        await over.wait()
