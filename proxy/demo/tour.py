"""The steps of the demo, each of which is over within its time limit; nothing that they start outlives them."""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from predawn.proxy.demo import cost
from predawn.proxy.demo.asking import Asker, AskingError
from predawn.proxy.demo.ink import Ink
from predawn.proxy.demo.upstream import choose
from predawn.proxy.local_server import StartError, fetch, serving
from predawn.proxy.small_model.download import SetupError
from predawn.proxy.small_model.files import cache_folder
from predawn.proxy.small_model.report import Report

if TYPE_CHECKING:
    from predawn.proxy.demo.asking import Answered
    from predawn.proxy.demo.questions import Question
    from predawn.proxy.demo.upstream import DemoUpstream
    from predawn.proxy.local_server import LocalServer


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line says."""

    question: str | None = None
    model: str | None = None
    port: int = 0
    goes_on: bool = True
    """Whether it serves on after the questions."""


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""What a model may not do to a terminal."""


class DemoError(Exception):
    """The demo cannot go on; the message is for the person at the terminal."""


def run(wishes: Wishes) -> int:
    """Run the demo; 0 if every question was answered, else 1. Leaves no process behind."""
    report = Report(sys.stdout)
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # SIGINT too: a shell's background job begins with it ignored
        if hasattr(signal, name):  # raise KeyboardInterrupt, so that everything is stopped on the way out
            signal.signal(getattr(signal, name), signal.default_int_handler)
    try:
        with ExitStack() as stack:
            server, upstream = demonstrate(wishes, report, stack)
            if wishes.goes_on:
                serve_on(server, upstream, report)
    except (DemoError, AskingError, SetupError, StartError) as exc:
        return _fail(report, str(exc))
    except OSError as exc:
        where = f" (PREDAWN_CACHE chooses another folder than {cache_folder()})"
        return _fail(report, f"{exc}{where if str(cache_folder()) in str(exc) else ''}")
    except KeyboardInterrupt:
        return _fail(report, "stopped")
    return 0


def demonstrate(wishes: Wishes, report: Report, stack: ExitStack) -> tuple[LocalServer, DemoUpstream]:
    """All steps of the demo; whatever is started ends with `stack`."""
    upstream = choose(wishes.model, os.environ, report, stack)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="predawn-demo-")))
    report.step(f"starting Predawn on {upstream.title}")
    server = stack.enter_context(serving(upstream.as_settings(), folder=folder, port=wishes.port))
    report.step(f"Predawn serves it at {server.base_url}\n")
    ink = Ink(sys.stdout, os.environ)
    asker = Asker(server.base_url, upstream.alias)
    answers = [put(question, asker, report, ink) for question in upstream.questions_for(wishes.question)]
    samples = cost.samples_of(fetch(f"{server.admin_url}/metrics").decode())
    heading, *rows = cost.table_lines(answers)
    for line in ("tokens and time by phase", ink("dim", heading), *rows, cost.overhead_line(samples, len(answers))):
        report.step(line)
    return server, upstream


def put(question: Question, asker: Asker, report: Report, ink: Ink) -> Answered:
    """Ask one question; its answer appears as it is written."""
    report.step(f"{ink('name', 'you')}     {question.text}")
    answered = asker.ask(question, _Telling(report, ink).tell)
    mark = ""
    if question.expected is not None:
        is_right = answered.text.strip() == question.expected
        mark = ink("good", "  right") if is_right else ink("bad", f"  wrong: it is {question.expected}")
    report.step(f"{mark}\n")
    return answered


class _Telling:
    """Writes an answer as it comes: its thoughts on lines of their own."""

    def __init__(self, report: Report, ink: Ink) -> None:
        self._report = report
        self._ink = ink
        self._kind = ""

    def tell(self, kind: str, text: str) -> None:
        if kind != self._kind:
            line = "\n" if self._kind else ""
            name = "thinks" if kind == "thought" else "model"
            self._report.start(f"{line}{self._ink('name', name)}{' ' * (8 - len(name))}")
            self._kind = kind
        self._report.start(self._ink("dim" if kind == "thought" else "bold", _CONTROL.sub("\ufffd", text)))


def serve_on(server: LocalServer, upstream: DemoUpstream, report: Report) -> None:
    """Serve until Ctrl-C."""
    report.step(
        "\nPredawn goes on serving. In your own program:\n"
        f'  client = OpenAI(base_url="{server.base_url}", api_key="any")\n'
        f'  client.chat.completions.create(model="{upstream.alias}", messages=[...])\n'
        "To look at:\n"
        f"  {server.admin_url}/          watch it happen\n"
        f"  {server.admin_url}/metrics   everything that is measured\n"
        f"  {server.base_url}/exchanges   what each request cost\n"
        "Ctrl-C stops everything."
    )
    try:
        while server.child.status is None:
            time.sleep(0.5)
    except KeyboardInterrupt:
        report.step("stopped")
        return
    raise DemoError(f"the proxy ended by itself:\n{server.child.tail()}")


def _fail(report: Report, message: str) -> int:
    report.end_line()
    sys.stdout.flush()
    sys.stderr.write(f"predawn demo: {message}\n")
    return 1
