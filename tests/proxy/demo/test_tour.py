"""`predawn demo` as its user runs it, in front of a fake provider."""

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.clients.scripted_process import scripted_process

from predawn.proxy.local_server import fetch

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")


@pytest.fixture(scope="module")
def provider():
    with scripted_process("--text", "Paris, of course.", "--model", "fake-chat", "--interval-ms", "1") as address:
        yield f"{address}/v1"


@pytest.fixture(scope="module")
def slow_provider():
    with scripted_process("--chunks", "3000", "--interval-ms", "20", "--model", "fake-chat") as address:
        yield f"{address}/v1"


class Demo:
    """The command, running; whatever it starts carries a mark in its environment."""

    def __init__(self, base_url, *options, **env):
        self.mark = uuid.uuid4().hex
        command = [sys.executable, "-P", "-m", "predawn.proxy.cli", "demo", *options]
        cleared = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**cleared, "OPENAI_BASE_URL": base_url, "DEMO_MARK": self.mark, **env},
        )

    def read_until(self, pattern):
        text = ""
        while not (found := re.search(pattern, text)):
            piece = os.read(self.process.stdout.fileno(), 4096)
            assert piece, text
            text += piece.decode()
        return found

    def over(self):
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err

    def processes(self):
        """Who carries the mark and is alive."""
        mark = f"DEMO_MARK={self.mark}".encode()
        return [path.parent.name for path in Path("/proc").glob("[0-9]*/environ") if mark in environment(path)]

    def leaves_nothing(self):
        give_up_at = time.monotonic() + 15
        while alive := self.processes():
            assert time.monotonic() < give_up_at, f"still alive: {alive}"
            time.sleep(0.05)


def environment(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


@on_linux
def test_the_demo_shows_the_answer_and_what_it_took(provider):
    demo = Demo(provider, "--exit", "--question", "What is the capital of France?")
    status, out, err = demo.over()

    assert (status, err) == (0, "")
    assert "you     What is the capital of France?\nmodel   Paris, of course.\n" in out
    assert re.search(r"prompt +thinking +answer +in all\n", out)
    assert re.search(r"your question +\d+ tokens +[\d.]+ ms +- +\d+ tokens +[\d.]+ ms +[\d.]+ ms\n", out)
    assert re.search(r"added by Predawn itself: [\d.]+ ms a request\n", out)
    assert "\x1b" not in out
    assert demo.processes() == []


@on_linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_demo_and_all_it_started(slow_provider, number):
    demo = Demo(slow_provider)
    demo.read_until(r"model   \w+")
    running = len(demo.processes())
    demo.process.send_signal(number)
    status, _, err = demo.over()

    assert (status, err) == (1, "predawn demo: stopped\n")
    assert running == 2
    assert demo.processes() == []


@on_linux
def test_a_killed_demo_takes_all_it_started_with_it(slow_provider):
    demo = Demo(slow_provider)
    demo.read_until(r"model   \w+")
    demo.process.kill()
    demo.over()

    demo.leaves_nothing()


@on_linux
def test_the_demo_serves_the_users_own_client_until_it_is_interrupted(provider):
    import openai

    demo = Demo(provider)
    base_url, metrics = demo.read_until(r'base_url="([^"]+)"[\s\S]*(http://\S+/metrics)[\s\S]*Ctrl-C').groups()
    metrics_page = fetch(metrics)
    page = fetch(metrics.removesuffix("metrics") + "status").decode()
    with openai.OpenAI(base_url=base_url, api_key="any", max_retries=0) as client:
        answer = client.chat.completions.create(model="fake-chat", messages=[{"role": "user", "content": "hi"}])
    demo.process.send_signal(signal.SIGINT)
    status, _, err = demo.over()

    assert answer.choices[0].message.content == "Paris, of course."
    assert "fake-chat" in page
    assert b"predawn_requests_total" in metrics_page
    assert (status, err) == (0, "")
    assert demo.processes() == []


def test_a_provider_that_refuses_ends_the_demo_with_its_reason(provider):
    status, out, err = Demo(provider, OPENAI_MODEL="script:status=401").over()

    assert status == 1
    assert "401" in err


def test_an_answer_that_breaks_off_ends_the_demo_with_its_reason(provider):
    status, out, err = Demo(provider, "--exit", OPENAI_MODEL="script:die_mid_event").over()

    assert status == 1
    assert "the answer broke off" in err


def test_a_provider_that_nobody_serves_ends_the_demo_at_once():
    status, _, err = Demo("http://127.0.0.1:9/v1").over()

    assert status == 1
    assert "http://127.0.0.1:9/v1/models does not answer" in err


def test_a_cache_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    status, _, err = Demo("", "--model", "smollm2", PREDAWN_CACHE=str(tmp_path / "file" / "cache")).over()

    assert status == 1
    assert "PREDAWN_CACHE" in err


WEIGHTS = Path(__file__).parents[3] / "kernels" / "tiny" / "weights" / "config.json"


@on_linux
@pytest.mark.skipif(not WEIGHTS.exists() or not find_spec("torch"), reason="needs the bundled model and torch")
def test_the_bundled_model_answers_stories_and_thinks_when_asked_to():
    demo = Demo("", "--exit")
    status, out, err = demo.over()

    assert (status, err) == (0, "")
    assert out.count("\nyou     ") == 4
    assert out.count("\nthinks  ") == 1
    assert len(re.findall(r"\nmodel   ", out)) == 4
    assert demo.processes() == []
