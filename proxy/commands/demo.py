"""`predawn demo`: the proxy in front of a model, a few questions through it, and what they took."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction


def add_parser(subparsers: _SubParsersAction[ArgumentParser]) -> None:
    """Add the `demo` command."""
    parser = subparsers.add_parser(
        "demo",
        help="ask a model something through Predawn and show what it took",
        description="Starts the proxy on the model that comes with it, or in front of OPENAI_BASE_URL (with "
        "OPENAI_API_KEY and OPENAI_MODEL) if that is set; asks a few questions, shows the tokens and the time of each "
        "phase, and goes on serving until Ctrl-C.",
    )
    parser.add_argument("--question", help="ask this instead")
    parser.add_argument(
        "--model",
        choices=("predawn-tiny", "smollm2"),
        help="use this model, whatever OPENAI_BASE_URL says; smollm2 is fetched once (135 MB) and runs in llama.cpp",
    )
    parser.add_argument("--exit", action="store_true", help="end after the questions")
    parser.add_argument("--port", type=int, default=0, help="port of the proxy (default: a free one)")
    parser.set_defaults(run=run)


def run(options: Namespace) -> int:
    """Run the demo; 0 if every question was answered, else 1. Leaves no process behind."""
    from predawn.proxy.demo import tour

    return tour.run(tour.Wishes(options.question, options.model, options.port, goes_on=not options.exit))
