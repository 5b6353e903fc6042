"""A plugin of somebody else: in its own folder, installed as its own package, developed with a ten-line test."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from predawn.plugins.testing import predawn_server
from predawn.proxy.dispatch import PluginError

SOURCE = Path(__file__).parent / "shout"
ANSWERS = {
    "upstreams": [{"name": "fake", "kind": "scripted", "script": {"text": "fine, thanks"}}],
    "models": [{"name": "m", "upstream": "fake"}],
    "server": {"port": 0, "admin_port": 0},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the plugin's project, so that building it leaves nothing behind."""
    return shutil.copytree(
        SOURCE, tmp_path_factory.mktemp("project") / "shout", ignore=shutil.ignore_patterns("*cache*")
    )


@pytest.fixture(scope="module")
def installed(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the plugin is installed, as pip would into an environment."""
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    run([*pip, "--disable-pip-version-check", "--target", str(target), str(project)], {})
    return target


def run(command: list[str], environment: Mapping[str, str], cwd: Path | None = None) -> str:
    done = subprocess.run(
        command, env={**os.environ, **environment}, cwd=cwd, capture_output=True, text=True, check=False, timeout=100
    )

    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def predawn(installed: Path, *arguments: str) -> str:
    return run([sys.executable, "-m", "predawn.proxy.cli", *arguments], {"PYTHONPATH": str(installed)})


def test_the_plugins_own_test_has_ten_lines_of_code() -> None:
    lines = (SOURCE / "tests" / "test_shout.py").read_text(encoding="utf-8").splitlines()

    assert len([line for line in lines if line.strip()]) <= 10


def test_the_plugins_own_test_passes(project: Path, installed: Path) -> None:
    told = run([sys.executable, "-m", "pytest", "-q", "tests"], {"PYTHONPATH": str(installed)}, project)

    assert "1 passed" in told


def test_the_plugin_type_checks_strictly(project: Path, installed: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "-p", "predawn_shout", "--cache-dir", str(project / "cache")]

    assert "no issues found" in run(command, {"PYTHONPATH": str(installed)}, project)


def test_the_plugin_is_listed_with_its_origin_and_settings(installed: Path) -> None:
    rows = {row["name"]: row for row in json.loads(predawn(installed, "plugins", "--json"))}
    shout = rows["shout"]

    assert shout["origin"] == "predawn-shout 1.2.0"
    assert shout["hooks"] == ["chunk_filter"]
    assert not shout["active"]
    assert "marks" in shout["settings"]["properties"]
    assert "marks (default 0): Exclamation marks after each answer." in predawn(installed, "plugins")


@contextmanager
def serving(installed: Path, folder: Path, settings: Mapping[str, Any]) -> Iterator[str]:
    """`predawn serve` in a process of its own; gives its base URL."""
    file = folder / "predawn.yaml"
    file.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    with subprocess.Popen(
        [sys.executable, "-m", "predawn.proxy.cli", "serve", "--config", str(file)],
        env={**os.environ, "PYTHONPATH": str(installed), "PREDAWN_STATE": str(folder / "state.db")},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            told: list[str] = []
            while not (found := re.search(r"serving on (http://\S+/v1)", told[-1] if told else "")):
                line = process.stderr.readline()
                assert line, "".join(told)
                told.append(line)
            yield found[1]
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)


def ask(base_url: str, *, stream: bool = False) -> str:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": stream}).encode()
    request = urllib.request.Request(f"{base_url}/chat/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as reply:
        raw = reply.read().decode()
    if not stream:
        return json.loads(raw)["choices"][0]["message"]["content"]
    events = [json.loads(line[6:]) for line in raw.splitlines() if line.startswith("data: {")]
    return "".join(event["choices"][0]["delta"].get("content") or "" for event in events)


def test_a_real_server_runs_the_plugin_that_its_settings_name(installed: Path, tmp_path: Path) -> None:
    with serving(installed, tmp_path, {**ANSWERS, "plugins": [{"shout": {"marks": 1}}]}) as base_url:
        said = [ask(base_url), ask(base_url, stream=True)]

    assert said == ["FINE, THANKS!", "FINE, THANKS!"]


@pytest.fixture
def importable(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The plugin is installed for this process too."""
    monkeypatch.syspath_prepend(str(installed))
    yield
    sys.modules.pop("predawn_shout", None)


async def asked(settings: Mapping[str, Any]) -> str:
    import aiohttp

    async with predawn_server({**ANSWERS, **settings}) as server, aiohttp.ClientSession() as http:
        async with http.post(f"{server.base_url}/chat/completions", json={"model": "m", "messages": []}) as reply:
            return (await reply.json())["choices"][0]["message"]["content"]


@pytest.mark.usefixtures("importable")
async def test_an_installed_plugin_that_is_not_named_does_not_run() -> None:
    assert await asked({}) == "fine, thanks"
    assert "predawn_shout" not in sys.modules
    assert await asked({"plugins": ["shout"]}) == "FINE, THANKS"


@pytest.mark.usefixtures("importable")
async def test_an_allow_list_keeps_a_named_plugin_out() -> None:
    with pytest.raises(PluginError, match="'shout' is not in allow_plugins"):
        await asked({"plugins": ["shout"], "allow_plugins": ["other"]})


@pytest.mark.usefixtures("importable")
async def test_a_wrong_setting_stops_the_start_with_the_nearest_name() -> None:
    with pytest.raises(PluginError, match="did you mean 'marks'"):
        await asked({"plugins": [{"shout": {"mark": 1}}]})


async def test_a_plugin_that_is_not_installed_stops_the_start() -> None:
    with pytest.raises(PluginError, match="there is no plugin 'shout'"):
        await asked({"plugins": ["shout"]})
