"""`predawn demo`: the proxy in front of a real model, one question through it, and what that cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction

QUESTION = "What is the capital of France? Answer in one short sentence."


def add_parser(subparsers: _SubParsersAction[ArgumentParser]) -> None:
    """Add the `demo` command."""
    parser = subparsers.add_parser(
        "demo",
        help="ask a real model something through Predawn and show what it cost",
        description="Starts the proxy in front of OPENAI_BASE_URL (with OPENAI_API_KEY and OPENAI_MODEL) if that is "
        "set, else in front of a small model that is fetched once and runs on this machine; asks it something with "
        "the official openai client, and shows the ledger and the metrics of that request.",
    )
    parser.add_argument("--question", default=QUESTION, help="what to ask (default: %(default)s)")
    parser.add_argument(
        "--keep", action="store_true", help="go on serving afterwards, for your own client, until Ctrl-C"
    )
    parser.add_argument("--port", type=int, default=0, help="port of the proxy (default: a free one)")
    parser.set_defaults(run=run)


def run(options: Namespace) -> int:
    """Run the demo; 0 if an answer came through and was accounted for, else 1. Leaves no process behind."""
    from predawn.proxy.demo import tour

    return tour.run(options.question, keep=options.keep, port=options.port)
