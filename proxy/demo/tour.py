"""The steps of the demo, each of which is over within its time limit; nothing that they start outlives them."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from predawn.proxy.child import Child, leashed
from predawn.proxy.demo import cost
from predawn.proxy.demo.upstream import choose
from predawn.proxy.local_server import StartError, fetch, serving
from predawn.proxy.small_model.download import SetupError
from predawn.proxy.small_model.files import cache_folder, client_python
from predawn.proxy.small_model.report import Report

if TYPE_CHECKING:
    from predawn.proxy.demo.upstream import DemoUpstream
    from predawn.proxy.local_server import LocalServer

ANSWER_TIMEOUT_S = 180.0
RECORD_TIMEOUT_S = 10.0
_CLIENT = Path(__file__).with_name("client.py")


class DemoError(Exception):
    """The demo cannot go on; the message is for the person at the terminal."""


def run(question: str, *, keep: bool, port: int) -> int:
    """Run the demo; 0 if an answer came through and was accounted for, else 1. Leaves no process behind."""
    report = Report(sys.stdout)
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # SIGINT too: a shell's background job begins with it ignored
        if hasattr(signal, name):  # raise KeyboardInterrupt, so that everything is stopped on the way out
            signal.signal(getattr(signal, name), signal.default_int_handler)
    try:
        with ExitStack() as stack:
            server, upstream = demonstrate(question, port, report, stack)
            if keep:
                keep_serving(server, upstream, report)
    except (DemoError, SetupError, StartError) as exc:
        return _fail(report, str(exc))
    except OSError as exc:
        where = f" (PREDAWN_CACHE chooses another folder than {cache_folder()})"
        return _fail(report, f"{exc}{where if str(cache_folder()) in str(exc) else ''}")
    except KeyboardInterrupt:
        return _fail(report, "stopped")
    return 0


def demonstrate(question: str, port: int, report: Report, stack: ExitStack) -> tuple[LocalServer, DemoUpstream]:
    """All steps of the demo; whatever is started ends with `stack`."""
    python = _client_python(report)
    upstream = choose(os.environ, report, stack)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="predawn-demo-")))
    server = stack.enter_context(serving(upstream.as_settings(), folder=folder, port=port))
    report.step(f"Predawn at {server.base_url}, in front of {upstream.title}\n")
    report.step(f"you     {question}")
    report.start("model   ")
    answer = ask(python, _task(server, upstream, question), folder)
    report.step("")
    show_cost(server, answer, report)
    return server, upstream


def _client_python(report: Report) -> Path:
    """An interpreter with the official client: this one if it has it."""
    if importlib.util.find_spec("openai"):
        return Path(sys.executable)
    return client_python(cache_folder(), report)


def _task(server: LocalServer, upstream: DemoUpstream, question: str) -> dict[str, Any]:
    return {
        "base_url": server.base_url,
        "model": upstream.alias,
        "question": question,
        "options": dict(upstream.options),
    }


def ask(python: Path, task: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Ask with the official client; the answer appears as it is written. Returns what the client saw."""
    asked, seen = folder / "task.json", folder / "seen.json"
    asked.write_text(json.dumps(task), encoding="utf-8")
    env = {**os.environ, "NO_PROXY": "*", "PYTHONIOENCODING": "utf-8:replace"}  # the proxy is on loopback
    command = leashed(python, str(_CLIENT), str(asked), str(seen))
    with Child(command, log=folder / "client.log", env=env, talks=True) as it:
        try:
            it.process.wait(ANSWER_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise DemoError(f"no complete answer within {ANSWER_TIMEOUT_S:.0f} s") from None
    if not seen.exists():
        raise DemoError(f"the client ended with status {it.status}:\n{it.tail()}")
    result: dict[str, Any] = json.loads(seen.read_text(encoding="utf-8"))
    if "error" in result:
        raise DemoError(f"the request failed: {result['error']}")
    return result


def show_cost(server: LocalServer, answer: dict[str, Any], report: Report) -> None:
    """Print the ledger and the metrics of the request."""
    ledger = _ledger(server, answer["id"])
    samples = cost.samples_of(fetch(f"{server.admin_url}/metrics").decode())
    lines = [f"\nits ledger (GET /v1/exchanges/{answer['id']})", *cost.ledger_lines(ledger)]
    lines += [cost.overhead_line(samples), f"\nits metrics (GET {server.admin_url}/metrics)"]
    for line in lines + cost.metric_lines(samples):
        report.step(line)


def _ledger(server: LocalServer, exchange_id: str) -> dict[str, Any]:
    """The recorded ledger; it is written just after the answer, so it may take a moment."""
    give_up_at = time.monotonic() + RECORD_TIMEOUT_S
    while True:
        try:
            record = json.loads(fetch(f"{server.base_url}/exchanges/{exchange_id}"))
            return {"total_s": record["total_s"], **record["ledger"]}
        except (OSError, ValueError, KeyError) as exc:
            if time.monotonic() > give_up_at:
                raise DemoError(f"the answer came, but its ledger cannot be read: {exc!r}") from exc
            time.sleep(0.1)


def keep_serving(server: LocalServer, upstream: DemoUpstream, report: Report) -> None:
    """Serve until Ctrl-C."""
    report.step(
        "\nPredawn goes on serving. In your own program:\n"
        f'  client = OpenAI(base_url="{server.base_url}", api_key="any")\n'
        f'  client.chat.completions.create(model="{upstream.alias}", messages=[...])\n'
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
    sys.stderr.write(f"predawn demo: {message}\n")
    return 1
