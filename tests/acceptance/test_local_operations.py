"""What happens to answers of a local model when processes end: the engine's, the server's, everybody's."""

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import openai
import pytest

pytest.importorskip("torch")

from tests.acceptance.local_models import served, write_model
from tests.acceptance.process import predawn

from predawn.proxy.local_server import fetch

FOREVER = {"max_tokens": 30_000, "temperature": 0, "extra_body": {"ignore_eos": True}}
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "tiny", context=32_768)


def connected(server):
    return openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0, timeout=60)


def engine_of(server):
    """The engine's process: the server's only child."""
    pid = server.child.process.pid
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def settled(condition, seconds=20):
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at, "nothing happened"
        time.sleep(0.02)


def status_of(url):
    try:
        return json.loads(fetch(url))
    except OSError as exc:
        return json.loads(exc.read())


def test_a_killed_engine_is_told_and_started_again(model, tmp_path):
    with served(model, tmp_path) as server, connected(server) as client:
        stream = client.chat.completions.create(model="m", messages=HELLO, stream=True, **FOREVER)
        chunks = iter(stream)
        for _ in range(3):
            next(chunks)
        os.kill(engine_of(server), signal.SIGKILL)
        with pytest.raises(openai.APIError) as broken:
            list(chunks)
        ready, health = status_of(f"{server.admin_url}/ready"), status_of(f"{server.admin_url}/health")
        settled(lambda: status_of(f"{server.admin_url}/ready")["status"] == "ready", 60)
        again = client.chat.completions.create(model="m", messages=HELLO, max_tokens=2)

        assert "the answer broke off: the engine's process ended" in broken.value.message
        assert ready == {"status": "not ready", "engines": {"local": "restarting"}}
        assert health == {"status": "ok", "engines": {"local": "restarting"}}
        assert again.choices
        assert "killed by signal 9; starting it again" in server.child.log.read_text()
        assert 'predawn_engine_starts_total{upstream="local"} 2.0' in fetch(f"{server.admin_url}/metrics").decode()


def test_an_engine_that_hangs_is_told_killed_and_started_again(model, tmp_path):
    with served(model, tmp_path, hang_s=3) as server, connected(server) as client:
        engine = engine_of(server)
        chunks = iter(client.chat.completions.create(model="m", messages=HELLO, stream=True, **FOREVER))
        next(chunks)
        os.kill(engine, signal.SIGSTOP)
        with pytest.raises(openai.APIError) as broken:
            list(chunks)
        ready = status_of(f"{server.admin_url}/ready")
        settled(lambda: status_of(f"{server.admin_url}/ready")["status"] == "ready", 60)
        again = client.chat.completions.create(model="m", messages=HELLO, max_tokens=2)

        assert "the answer broke off: the engine's process ended" in broken.value.message
        assert ready == {"status": "not ready", "engines": {"local": "restarting"}}
        assert again.choices
        assert gone(engine)
        assert "gave no sign of life for 3 s (`engine.hang_s`) and was killed" in server.child.log.read_text()


def test_a_killed_server_takes_its_engine_along(model, tmp_path):
    with served(model, tmp_path) as server, connected(server) as client:
        engine = engine_of(server)
        stream = client.chat.completions.create(model="m", messages=HELLO, stream=True, **FOREVER)
        next(iter(stream))
        os.kill(server.child.process.pid, signal.SIGKILL)

        settled(lambda: gone(engine))
        stream.close()


def test_a_drain_lets_answers_end_and_then_ends_the_engine(model, tmp_path):
    with served(model, tmp_path, server={"drain_timeout_s": 60}) as server, connected(server) as client:
        engine = engine_of(server)
        options = {**FOREVER, "max_tokens": 300}
        chunks = iter(client.chat.completions.create(model="m", messages=HELLO, stream=True, **options))
        next(chunks)
        os.killpg(engine, signal.SIGTERM)  # as a service manager does with everything at once
        server.child.process.terminate()
        received = list(chunks)
        status = server.child.process.wait(30)

        assert received[-1].choices[0].finish_reason == "length"
        assert (status, gone(engine)) == (0, True)


async def test_a_server_without_its_model_does_not_start(tmp_path):
    config = tmp_path / "predawn.yaml"
    missing = tmp_path / "no-model"
    config.write_text(
        json.dumps({"upstreams": [{"name": "local", "kind": "local", "path": str(missing)}], "state": "s.db"})
    )
    async with predawn(tmp_path, "serve", "--config", config) as server:
        status = await server.ended()

    assert status == 1
    assert f"predawn: upstream 'local': {missing}: is missing; name a folder with a model" in server.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_workers_have_an_engine_each_and_say_so(model, tmp_path, number):
    config = tmp_path / "predawn.yaml"
    engine = {"threads": 1, "kv_memory_mb": 16}
    settings = {
        "server": {"port": 0, "admin_port": 0, "workers": 2, "drain_grace_s": 0, "log": {"format": "text"}},
        "state": str(tmp_path / "state.db"),
        "upstreams": [{"name": "local", "kind": "local", "path": str(model), "engine": engine}],
        "models": [{"name": "m", "upstream": "local"}],
    }
    config.write_text(json.dumps(settings))
    async with predawn(tmp_path, "serve", "--config", config) as server:
        await server.says("serving on", times=2)
        engines = [int(line.rpartition("process ")[2]) for line in server.log.splitlines() if "ready in" in line]
        server.signal(number)
        status = await server.ended()
        async with asyncio.timeout(10):
            while not all(map(gone, engines)):
                await asyncio.sleep(0.05)

    assert "each of 2 workers loads the model of upstream 'local' for itself" in server.log
    assert (len(set(engines)), status) == (2, 0)
