import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

import pytest

from predawn.kernels.engine.client import BEATS, EngineClient, EngineError, RefusedError
from predawn.kernels.engine.protocol import Began, Ended, Open, Piece, Ready, Stats
from predawn.proxy.tasks import Tasks

COMMAND = [sys.executable, "-P", str(Path(__file__).with_name("scripted_worker.py"))]


def body(content="hello", **members):
    import json

    return json.dumps({"messages": [{"role": "user", "content": content}], **members}).encode()


FOREVER = body("[[la]] forever slowly", stream=True)
HANG_S = 77.0


linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked at in /proc")


class Sleeper:
    """Passes no time, and remembers how much it was asked to. Between two pings it passes when `beats` are released."""

    def __init__(self):
        self.asked = []
        self.beats = asyncio.Semaphore(0)

    async def sleep(self, seconds):
        if seconds == HANG_S / BEATS:
            await self.beats.acquire()
            return
        self.asked.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
async def make():
    tasks = Tasks()
    made = []

    def client(path="scripted", *, command=COMMAND, sleeper=None, heard=None, **options):
        made.append(
            EngineClient(
                Open(path=str(path), **options),
                name="local",
                spawn=tasks.spawn,
                hang_s=HANG_S,
                sleep=(sleeper or Sleeper()).sleep,
                heard=heard.append if heard is not None else lambda _: None,
                command=command,
            )
        )
        return made[-1]

    yield client
    for one in made:
        await one.aclose()
    await tasks.cancel()


async def all_of(answer):
    said = []
    while more := await answer.more():
        said += more
    return said


async def until(answer, kind):
    """What is said until something of this kind is."""
    said = []
    while not any(isinstance(item, kind) for item in said):
        said += await answer.more()
    return said


async def test_an_answer_comes_as_it_is_made(make):
    client = make()
    ready = await client.open()
    said = await all_of(client.chat(body("[[ab]]", stream=True)))

    assert (ready.model, client.condition) == ("scripted", "ready")
    assert [type(item) for item in said] == [Began, Piece, Piece, Piece, Ended]
    assert client.live == 0


async def test_answers_do_not_wait_for_one_another(make):
    client = make()
    await client.open()
    slow = client.chat(FOREVER)
    await until(slow, Piece)
    quick = await all_of(client.complete(b'{"prompt": "[[ok]]"}'))

    assert quick[1].text == "ok"
    assert not slow.is_over


async def test_a_refusal_is_raised(make):
    client = make()
    await client.open()
    with pytest.raises(RefusedError) as refused:
        await client.chat(body(n=0)).more()

    assert refused.value.refusal.param == "n"
    assert client.live == 0


async def test_closing_an_answer_frees_its_place(make):
    client = make(max_batch=1, max_waiting=0)
    await client.open()
    first = client.chat(FOREVER)
    await until(first, Piece)
    first.close()
    first.close()

    assert client.live == 0
    assert (await all_of(client.chat(body("[[a]]"))))[1].text == "a"


async def test_a_waiting_request_that_nobody_wants_is_dropped_at_once(make):
    heard = []
    client = make(max_batch=1, heard=heard)
    await client.open()
    running = client.chat(FOREVER)
    await until(running, Piece)
    waiting = client.chat(body())
    await until(waiting, Began)
    waiting.close()
    after = client.chat(body())
    await until(after, Began)
    running.close()
    await all_of(after)
    while not any(isinstance(item, Stats) and item.running == 0 for item in heard[1:]):
        await asyncio.sleep(0.01)

    assert [item.waiting for item in heard if isinstance(item, Stats)][-1] == 0


async def test_an_engine_that_cannot_load_says_why(make):
    client = make("broken")
    with pytest.raises(EngineError, match="the weights are broken"):
        await client.open()

    assert client.condition == "stopped"


async def test_an_engine_that_dies_while_it_starts_is_not_tried_again(make):
    client = make("dies")
    with pytest.raises(EngineError, match="ended with status 1\nit ended with a word"):
        await client.open()


async def test_a_program_that_does_not_exist_is_told(make):
    with pytest.raises(EngineError, match="cannot be started"):
        await make(command=["/nowhere/python"]).open()


async def test_a_program_that_is_no_engine_is_told(make):
    chatter = [sys.executable, "-c", "import sys; sys.stdout.buffer.write(b'\\0\\0\\0\\1\\xc1'); input()"]

    with pytest.raises(EngineError, match="speaks nonsense"):
        await make(command=chatter).open()


async def test_opening_can_be_given_up(make):
    client = make("mute")
    opening = Tasks().spawn(client.open(), "opening")
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening

    assert client.condition == "stopped"


async def test_a_killed_engine_fails_its_answers_and_comes_back(make, caplog):
    heard, sleeper = [], Sleeper()
    client = make(heard=heard, sleeper=sleeper)
    await client.open()
    running, dying = client.chat(FOREVER), client.chat(body("[[abcdef]] die", stream=True))
    await until(running, Piece)
    with caplog.at_level(logging.ERROR, "predawn.engine"), pytest.raises(EngineError):
        await all_of(dying)
    with pytest.raises(EngineError):
        await all_of(running)
    assert client.condition == "restarting"
    with pytest.raises(EngineError, match="the engine is restarting"):
        client.chat(body())
    async with asyncio.timeout(20):
        await client.ready()

    assert (await all_of(client.chat(body("[[back]]"))))[1].text == "back"
    assert sleeper.asked == [0.25]
    assert "killed by signal 9; starting it again in 0.25 s" in caplog.text
    assert [type(item) for item in heard if not isinstance(item, Stats)] == [Ready, type(None), Ready]


async def stop(pid):
    """Keep a process from running."""
    os.kill(pid, signal.SIGSTOP)
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        await asyncio.sleep(0.01)


@linux
async def test_an_engine_that_hangs_is_killed_and_started_again(make, caplog):
    heard, sleeper = [], Sleeper()
    client = make(heard=heard, sleeper=sleeper)
    await client.open()
    running = client.chat(FOREVER)
    await until(running, Piece)
    await stop(client.pid)
    for _ in range(BEATS + 1):  # what it had said before may count for the first
        sleeper.beats.release()
    with caplog.at_level(logging.ERROR, "predawn.engine"), pytest.raises(EngineError, match="process ended"):
        await all_of(running)
    assert client.condition == "restarting"
    async with asyncio.timeout(20):
        await client.ready()

    assert (await all_of(client.chat(body("[[back]]"))))[1].text == "back"
    assert "gave no sign of life for 77 s (`engine.hang_s`) and was killed; starting it again in 0.25 s" in caplog.text
    assert [type(item) for item in heard if not isinstance(item, Stats)] == [Ready, type(None), Ready]


async def test_an_engine_with_nothing_to_do_is_not_taken_for_one_that_hangs(make):
    sleeper = Sleeper()
    client = make(sleeper=sleeper)
    await client.open()
    pid, life = client.pid, client._life
    async with asyncio.timeout(20):
        for _ in range(3 * BEATS):
            while not life.was_heard:
                await asyncio.sleep(0.001)
            sleeper.beats.release()
            while life.was_heard and sleeper.beats._value:
                await asyncio.sleep(0)

    assert (client.condition, client.pid) == ("ready", pid)


@linux
async def test_a_request_that_a_dying_engine_had_looked_at_is_told_from_one_it_had_not(make):
    client = make(max_batch=1)
    await client.open()
    running, waiting = client.chat(FOREVER), client.chat(body())
    await until(running, Piece)
    await until(waiting, Began)
    await stop(client.pid)
    unseen = client.chat(body())
    os.kill(client.pid, signal.SIGKILL)
    errors = []
    for answer in (running, waiting, unseen):
        with pytest.raises(EngineError) as error:
            await all_of(answer)
        errors.append(error.value)

    assert [error.taken for error in errors] == [True, True, False]


@linux
async def test_the_engines_process_is_told_no_secrets(make, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("PREDAWN_ADMIN_KEY", "secret")
    monkeypatch.setenv("OMP_PROC_BIND", "close")
    client = make()
    await client.open()
    told = dict(entry.split("=", 1) for entry in Path(f"/proc/{client.pid}/environ").read_text().split("\0") if entry)

    assert "secret" not in told.values()
    assert {name: told[name] for name in ("PATH", "OMP_PROC_BIND")} == {
        "PATH": os.environ["PATH"],
        "OMP_PROC_BIND": "close",
    }


async def test_pauses_grow_while_the_engine_cannot_start_again(make, tmp_path):
    sleeper = Sleeper()
    client = make(tmp_path / "once-only", sleeper=sleeper)
    await client.open()
    client.chat(body("[[abcdef]] die"))
    async with asyncio.timeout(30):
        while len(sleeper.asked) < 4:
            await asyncio.sleep(0.01)

    assert sleeper.asked[:4] == [0.25, 0.5, 1.0, 2.0]
    assert client.condition == "restarting"


async def test_closing_ends_the_process_and_its_answers(make):
    client = make()
    await client.open()
    answer = client.chat(FOREVER)
    await until(answer, Piece)
    pid = client.pid
    await client.aclose()
    with pytest.raises(EngineError):
        await all_of(answer)

    assert client.condition == "stopped"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_an_engine_that_does_not_end_is_ended_by_force(make):
    client = make()
    await client.open()
    os.kill(client.pid, signal.SIGSTOP)
    pid = client.pid
    await client.aclose()

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
