import sys

import pytest

from predawn.proxy.child import Child
from predawn.proxy.small_model import server
from predawn.proxy.small_model.download import SetupError
from predawn.proxy.small_model.files import SmallModel


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (4, 2), (64, 4)])
def test_the_model_leaves_cores_to_the_others(monkeypatch, cores, threads):
    monkeypatch.setattr(server.os, "sched_getaffinity", lambda _: range(cores), raising=False)

    assert server.threads() == threads


def test_a_server_that_ends_at_once_is_reported_with_its_last_words(tmp_path):
    model = SmallModel(python=sys.executable, weights=tmp_path / "absent.gguf")

    with (
        pytest.raises(SetupError, match=r"(?s)ended with status 1.*No module named 'xllamacpp'"),
        server.running(model),
    ):
        pass


def test_a_server_that_says_nothing_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "START_TIMEOUT_S", 0.2)
    out = tmp_path / "out"
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]

    with Child(command, log=tmp_path / "log", out=out) as child, pytest.raises(SetupError, match="not ready after"):
        server._address(child, out)
