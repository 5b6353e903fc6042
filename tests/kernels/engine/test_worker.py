"""The engine's process as such: how it starts, what it prints, when it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from predawn.kernels.engine import worker
from predawn.kernels.engine.protocol import (
    Ask,
    Began,
    Cancel,
    Ended,
    Failed,
    Frames,
    Loading,
    Open,
    Ping,
    Pong,
    Ready,
    Refused,
    Taken,
    frame,
    news,
)
from predawn.kernels.engine.worker import Pulse

COMMAND = [sys.executable, "-P", str(Path(__file__).with_name("scripted_worker.py"))]
HELLO = b'{"messages":[{"role":"user","content":"hello"}]}'
FOREVER = b'{"messages":[{"role":"user","content":"[[la]] forever slowly"}], "stream": true}'


class Worker:
    """A process, and what it has said."""

    def __init__(self, path="scripted", command=COMMAND):
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)
        self.frames = Frames()
        self.said = []
        self.tell(Open(path=path))

    def tell(self, *orders):
        self.process.stdin.write(frame(*orders))
        self.process.stdin.flush()

    def until(self, kind):
        """Read until it says something of this kind."""
        while not any(isinstance(item, kind) for item in self.said):
            data = os.read(self.process.stdout.fileno(), 4096)
            assert data, self.process.stderr.read()
            self.said += news(self.frames.feed(data))
        return next(item for item in self.said if isinstance(item, kind))

    def over(self):
        """Close its input; its status and what it printed."""
        self.process.stdin.close()
        status = self.process.wait(10)
        errors = self.process.stderr.read().decode()
        self.process.stdout.close()
        self.process.stderr.close()
        return status, errors


@pytest.fixture
def start():
    started = []

    def make(*arguments, **options):
        started.append(Worker(*arguments, **options))
        return started[-1]

    yield make
    for one in started:
        one.process.kill()
        one.process.wait()
        for stream in (one.process.stdin, one.process.stdout, one.process.stderr):
            stream.close()


def test_it_tells_that_it_loads_and_then_that_it_is_ready(start):
    it = start()
    it.until(Ready)

    assert it.said[0] == Loading("loading scripted")


def test_it_ends_when_its_input_does(start):
    it = start()
    it.until(Ready)

    assert it.over() == (0, "")


def test_it_ends_in_the_middle_of_an_answer(start):
    it = start()
    it.until(Ready)
    it.tell(Ask(1, "chat", FOREVER))
    it.until(Began)

    assert it.over() == (0, "")


def test_it_ends_while_it_loads(start):
    it = start("mute")
    it.until(Loading)

    assert it.over() == (0, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_meant_for_the_proxy_do_not_end_it(start, number):
    it = start()
    it.until(Ready)
    it.process.send_signal(number)
    it.tell(Ask(1, "chat", HELLO))

    assert it.until(Ended).output == len("Hello.") + 1


def test_what_cannot_be_loaded_is_told(start):
    it = start("broken")

    assert it.until(Failed) == Failed("the weights are broken")
    assert it.process.wait(10) == 0


def test_what_libraries_print_is_no_message(start):
    it = start("noisy")
    it.until(Ready)
    it.tell(Ask(1, "chat", HELLO))
    it.until(Ended)

    assert it.over() == (0, "a library prints\n")


def test_a_request_that_was_cancelled_at_once_says_next_to_nothing(start):
    it = start()
    it.until(Ready)
    it.tell(Ask(1, "chat", FOREVER), Cancel(1), Ask(2, "chat", HELLO))

    assert it.until(Ended).id == 2
    assert [item for item in it.said if getattr(item, "id", None) == 1] in (
        [Taken(1)],
        [Taken(1), Began(1, 1, True, False)],
    )


def test_it_gives_a_sign_of_life_when_idle_and_between_steps(start):
    it = start()
    it.until(Ready)
    it.tell(Ping())
    it.until(Pong)
    it.said.clear()
    it.tell(Ask(1, "chat", FOREVER), Ping())

    assert it.until(Pong)


def test_a_step_that_does_not_end_keeps_it_from_giving_a_sign_of_life(start):
    it = start()
    it.until(Ready)
    it.tell(Ask(1, "chat", HELLO.replace(b"hello", b"stuck")))
    it.until(Taken)
    it.tell(Ping(), Ask(2, "chat", HELLO))
    while Taken(2) not in it.said:
        it.said += news(it.frames.feed(os.read(it.process.stdout.fileno(), 4096)))

    assert Pong() not in it.said


def test_a_request_is_told_to_be_taken_before_anything_is_made_of_it(start):
    it = start()
    it.until(Ready)
    it.tell(Ask(1, "chat", b"nonsense"))
    it.until(Refused)

    assert [type(item) for item in it.said if getattr(item, "id", None) == 1] == [Taken, Refused]


def test_orders_that_are_nonsense_end_it_with_a_word(start):
    it = start()
    it.until(Ready)
    it.process.stdin.write(b"\0\0\0\1\xc1")
    it.process.stdin.flush()

    assert it.process.wait(10) == 0
    assert b"DecodeError" in it.process.stderr.read()


def test_it_needs_no_torch_to_say_that_there_is_none(start):
    program = "import sys; sys.modules['torch'] = None\n"
    program += "from predawn.kernels.engine import loading, worker; worker.run(loading.load_engine)"
    it = start(None, command=[sys.executable, "-P", "-c", program])

    assert "pip install 'predawn[kernels]'" in it.until(Failed).message


def test_a_model_that_is_not_there_is_named(start):
    it = start("/nowhere/model", command=[sys.executable, "-P", "-m", worker.__name__])

    assert "/nowhere/model" in it.until(Failed).message


class Desk:
    idle = False
    stats_now = 0

    def stats(self):
        return self.stats_now


def test_stats_are_told_now_and_then_and_at_rest():
    now = [0.0]
    desk, pulse = Desk(), Pulse(lambda: now[0])
    told = []
    for time_s, stats, idle in [(1, 1, False), (1.1, 2, False), (1.3, 3, False), (1.31, 4, True), (1.32, 4, True)]:
        now[0], desk.stats_now, desk.idle = time_s, stats, idle
        told += pulse.beat(desk)

    assert told == [1, 3, 4]
