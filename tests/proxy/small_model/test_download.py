import io
import sys

import pytest

from predawn.proxy.small_model import download
from predawn.proxy.small_model.download import Item, SetupError, explain_pip
from predawn.proxy.small_model.report import Report

ITEM = Item("sample==1.0", "a sample", 12)


def fake_python(path, program):
    """An "interpreter" that runs `program` whatever it is asked for."""
    path.write_text(f"#!{sys.executable}\n{program}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        (
            "WARNING: Retrying ... NewConnectionError\nERROR: No matching distribution found",
            "cannot reach its package index",
        ),
        ("ERROR: No matching distribution found for sample==1.0", "no ready-made sample==1.0 for this machine"),
        ("OSError: [Errno 28] No space left on device", "no space left on the disk"),
        ("ERROR: something new", "could not get a sample: ERROR: something new"),
        ("", "no output"),
    ],
)
def test_the_words_of_pip_become_a_reason(words, meaning):
    assert meaning in explain_pip(words, ITEM)


@pytest.mark.parametrize("words", ["ConnectTimeout", "No matching distribution", "else"])
def test_an_error_names_the_other_way(words):
    assert "OPENAI_BASE_URL" in explain_pip(words, ITEM)


def test_a_download_shows_what_arrives_and_leaves_no_scratch(tmp_path):
    program = """
import os, pathlib, sys, time
part = pathlib.Path(os.environ["TMPDIR"]) / "part"
part.write_bytes(bytes(3_000_000)); time.sleep(0.5)
part.write_bytes(bytes(12_000_000)); time.sleep(0.5)
pathlib.Path(sys.argv[sys.argv.index("--dest") + 1], "sample-1.0-py3-none-any.whl").touch()
"""
    out = io.StringIO()
    python = fake_python(tmp_path / "python", program)
    wheel = download.download(python, ITEM, tmp_path / "wheels", Report(out))

    assert wheel == tmp_path / "wheels" / "sample-1.0-py3-none-any.whl"
    assert [path.name for path in (tmp_path / "wheels").iterdir()] == [wheel.name]
    assert "a sample: 3 of 12 MB\n" in out.getvalue()
    assert "a sample: 12 of 12 MB\n" in out.getvalue()


def test_a_download_that_stands_still_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "STALL_S", 0.3)
    python = fake_python(tmp_path / "python", "import sys; sys.stdin.read()")

    with pytest.raises(SetupError, match="nothing arrived"):
        download.download(python, ITEM, tmp_path / "wheels", Report(io.StringIO()))

    assert list((tmp_path / "wheels").iterdir()) == []


def test_a_failing_pip_is_explained(tmp_path):
    python = fake_python(tmp_path / "python", "import sys; sys.exit('ERROR: No matching distribution found')")

    with pytest.raises(SetupError, match="no ready-made sample==1.0"):
        download.download(python, ITEM, tmp_path / "wheels", Report(io.StringIO()))


def test_pip_is_not_led_elsewhere_by_the_users_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_TARGET", "/elsewhere")
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    env = download._pip_environment(tmp_path)

    assert "PIP_TARGET" not in env
    assert (env["PIP_USER"], env["PIP_INDEX_URL"]) == ("0", "https://mirror.example/simple")


def test_a_broken_interpreter_cannot_make_an_environment(tmp_path, monkeypatch):
    monkeypatch.setattr(download.sys, "executable", str(fake_python(tmp_path / "python", "exit('no ensurepip')")))

    with pytest.raises(SetupError, match="no ensurepip\nOn Debian and Ubuntu"):
        download.create_environment(tmp_path / "env", tmp_path / "log")
