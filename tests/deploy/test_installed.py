"""What the lock and the wheel make, in an empty environment, run as the container runs it.

bubblewrap stands in for a container engine: another user, no capability, a root file system that cannot be written, an
own /tmp and one writable folder. It is no engine: images, networks and cgroups are not tried here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "deploy" / "locks"
PORT = 20000 + os.getpid() % 9000
SETTINGS = """
server: {host: 0.0.0.0, admin_host: 0.0.0.0, drain_grace_s: 1, drain_timeout_s: 60}
access: {keys: required}
upstreams:
  - {name: fake, kind: scripted}
models:
  - {name: "*", upstream: fake}
plugins: [record]
"""


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """A virtual environment with the locked packages, each checked by its hash, and the wheel."""
    place = tmp_path_factory.mktemp("installed")
    build, environment = place / "build", place / "predawn"
    for folder in (build, environment):
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    locked = ["-m", "pip", "install", "--quiet", "--require-hashes", "--only-binary=:all:", "--requirement"]
    subprocess.run([build / "bin/python", *locked, LOCKS / "build.txt"], check=True)
    subprocess.run([environment / "bin/python", *locked, LOCKS / "server.txt"], check=True)
    wheel = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", place / "dist", ROOT]
    subprocess.run([build / "bin/python", *wheel], check=True)
    (made,) = (place / "dist").glob("*.whl")
    subprocess.run(
        [environment / "bin/python", "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", made], check=True
    )
    return environment


@pytest.fixture
def confined(installed, tool, tmp_path):
    """Starts a program of the environment as the container would; returns the process."""
    bwrap = tool("bwrap", "bubblewrap (Debian)")
    (tmp_path / "state").mkdir()
    (tmp_path / "predawn.yaml").write_text(SETTINGS, encoding="utf-8")

    def start(*command, **more):
        return subprocess.Popen(
            [
                *(bwrap, "--unshare-user", "--uid", "10001", "--gid", "10001", "--unshare-ipc", "--unshare-uts"),
                *("--cap-drop", "ALL", "--ro-bind", "/", "/", "--dev", "/dev", "--tmpfs", "/run"),
                *("--tmpfs", "/tmp", "--ro-bind", installed, installed, "--bind", tmp_path, "/mnt"),
                *("--remount-ro", "/", "--clearenv", "--setenv", "HOME", "/mnt/state"),
                *("--setenv", "PREDAWN_STATE", "/mnt/state/state.db", "--setenv", "PYTHONSAFEPATH", "1"),
                *("--setenv", "PATH", f"{installed}/bin:/usr/bin:/bin", "--chdir", "/mnt/state", "--", *command),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **more,
        )

    return start


def output(process):
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


@contextmanager
def serving(confined):
    process = confined("predawn", "serve", "--config", "/mnt/predawn.yaml", "--port", str(PORT))
    try:
        wait_for(lambda: answer("/health", port=PORT + 1000) == 200)
        yield process
    finally:
        process.kill()
        process.communicate()


def answer(path, port=PORT, **more):
    try:
        with urlopen(Request(f"http://127.0.0.1:{port}{path}", **more), timeout=5) as response:
            return response.status
    except HTTPError as exc:
        return exc.code
    except (URLError, OSError):
        return 0


def wait_for(condition, limit_s=30):
    until = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_the_environment_has_what_was_locked_and_nothing_else(installed):
    listed = subprocess.check_output([installed / "bin/python", "-m", "pip", "list", "--format=json"], text=True)
    subprocess.run([installed / "bin/python", "-m", "pip", "check"], check=True)
    names = {one["name"].lower().replace("_", "-") for one in json.loads(listed)} - {"pip", "setuptools", "predawn"}
    locked = (LOCKS / "server.txt").read_text(encoding="utf-8")

    assert [name for name in names if f"\n{name}==" not in locked] == []


def test_it_can_write_nothing_but_its_state_and_tmp(confined):
    code = """
import os
for folder in ("/", "/etc", "/usr", "/var/lib", os.path.dirname(os.__file__), "/mnt/state", "/tmp"):
    try:
        open(folder + "/probe", "w").close(); print("wrote", folder)
    except OSError: pass
print("user", os.getuid(), [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")])
"""

    assert output(confined("python", "-c", code)).splitlines() == [
        "wrote /mnt/state",
        "wrote /tmp",
        "user 10001 ['0000000000000000']",
    ]


def test_it_serves_under_a_read_only_root_and_a_stream_outlives_sigterm(confined):
    key = output(confined("predawn", "keys", "create", "me", "--config", "/mnt/predawn.yaml")).split()[-1]
    body = json.dumps({"model": "x", "stream": True, "messages": [{"role": "user", "content": "hi"}]}).encode()
    headers = {"authorization": f"Bearer {key}", "x-script": "interval_ms=200"}
    heard = []

    def listen():
        with urlopen(Request(f"http://127.0.0.1:{PORT}/v1/chat/completions", body, headers), timeout=60) as response:
            heard.extend(response)

    with serving(confined) as process:
        assert answer("/v1/models") == 401
        client = Thread(target=listen)
        client.start()
        wait_for(lambda: len(heard) > 2)
        process_of_python(process).terminate()
        wait_for(lambda: answer("/ready", port=PORT + 1000) == 503)
        assert client.is_alive()
        client.join(60)

        assert process.wait(30) == 0
        assert heard[-2:] == [b"data: [DONE]\n", b"\n"]


def process_of_python(process):
    """bubblewrap waits beside what it started; a container engine signals that one."""
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()

    class Child:
        def terminate(self):
            os.kill(int(child), 15)

    return Child()
