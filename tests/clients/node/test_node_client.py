"""The official Node client against the real server in front of the fake provider."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from tests.clients.scripted_process import scripted_process

from predawn.proxy.local_server import fetch, serving
from predawn.proxy.small_model.files import cache_folder

HERE = Path(__file__).parent
NPM_TIMEOUT_S = 90
MODEL = "scripted"


def node_major():
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, timeout=20, check=True).stdout
    return int(version.strip().lstrip("v").split(".")[0])


@pytest.fixture(scope="module")
def package():
    """A folder with the official client installed; kept in the cache."""
    if not (shutil.which("npm") and shutil.which("node")):
        pytest.skip("npm and node are not installed: the Node client is not tested")
    version = "7" if node_major() >= 22 else "6"
    folder = cache_folder() / f"node-openai-{version}"
    if not (folder / "node_modules" / "openai" / "package.json").exists():
        install(folder, f"openai@{version}")
    shutil.copy(HERE / "client.mjs", folder / "client.mjs")
    return folder


def install(folder, package):
    folder.mkdir(parents=True, exist_ok=True)
    options = [
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--no-package-lock",
        "--fetch-timeout=30000",
        "--fetch-retries=1",
    ]
    command = ["npm", "install", *options, "--prefix", str(folder), package]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=NPM_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm could not fetch {package} within {NPM_TIMEOUT_S} s")
    if done.returncode:
        pytest.skip(f"npm cannot fetch {package}: {done.stderr.strip()[-300:]}")


@pytest.fixture(scope="module")
def provider():
    with scripted_process() as address:
        yield address


@pytest.fixture(scope="module")
def seen(package, provider, tmp_path_factory):
    """What the Node program saw, step by step."""
    settings = {
        "upstreams": [{"name": "fake", "base_url": f"{provider}/v1", "auth": "none", "retries": {"attempts": 1}}],
        "models": [{"name": MODEL, "upstream": "fake"}],
        "plugins": ["record"],
    }
    with serving(settings, folder=tmp_path_factory.mktemp("predawn")) as server:
        done = subprocess.run(
            ["node", "client.mjs", server.base_url, MODEL],
            cwd=package,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "NO_PROXY": "*"},
        )
        assert done.returncode == 0, done.stderr + server.child.tail()
        wait_until_stopped(provider)
        yield {**json.loads(done.stdout), "counts": json.loads(fetch(f"{provider}/counts"))}


def wait_until_stopped(provider):
    give_up_at = time.monotonic() + 5
    while json.loads(fetch(f"{provider}/counts"))["in_flight"]:
        assert time.monotonic() < give_up_at, "the provider goes on although the client has gone"
        time.sleep(0.05)


def test_an_answer_comes_with_the_id_of_its_request(seen):
    assert seen["chat"]["text"] == "good morning"
    assert seen["chat"]["id"].startswith("req_")


def test_a_stream_comes_piece_by_piece(seen):
    assert seen["stream"] == {"pieces": ["good", " ", "mörning ☀"], "counted": True}


def test_tool_calls_come_whole_and_streamed(seen):
    assert seen["tool"] == [{"name": "lookup", "arguments": {"city": "Paris"}, "why": "tool_calls"}] * 2


def test_a_refusal_keeps_its_class_and_its_advice(seen):
    assert seen["refusal"] == {"kind": "RateLimitError", "status": 429, "retryAfter": "7", "id": True}


def test_an_unknown_model_is_not_found(seen):
    assert seen["unknownModel"] == {"kind": "NotFoundError", "code": "model_not_found"}


def test_a_stream_that_was_cut_off_is_an_error(seen):
    assert seen["cutOff"]["kind"] == "APIError"
    assert "the answer was cut off" in seen["cutOff"]["says"]


def test_leaving_a_stream_stops_the_provider(seen):
    assert seen["abort"] == {"seen": 3, "aborted": True}
    assert seen["counts"]["cut"] == 1


def test_models_and_embeddings_are_understood(seen):
    assert (seen["models"], seen["embedding"]) == ([MODEL], {"numbers": True})
