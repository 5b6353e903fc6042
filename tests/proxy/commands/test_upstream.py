from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from predawn.proxy.commands import upstream
from predawn.proxy.upstreams.scripted import Script, ScriptError


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    upstream.add_parser(parser.add_subparsers())
    return parser.parse_args(["upstream", "scripted", *arguments])


def test_options_go_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "script.yaml"
    file.write_text("chunks: 3\nerror_rate: 0.5\nanswers: [one, {fault: no_done}]\n")

    script = upstream.read_script(options("--script", str(file), "--chunks", "9", "--model", "a", "--model", "b"))

    assert (script.chunks, script.error_rate, script.interval_ms) == (9, 0.5, 20)
    assert script.models == ("a", "b")
    assert script.answers[0].text == "one"


def test_without_options_it_paces_sixteen_chunks() -> None:
    assert upstream.read_script(options()) == Script(interval_ms=20)
    assert Script().chunks == 16


@pytest.mark.parametrize("text", ["chunk: 3", "- a", "a: [", "\0"])
def test_a_file_that_is_no_script_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "script.yaml"
    file.write_text(text)

    with pytest.raises(ScriptError):
        upstream.read_script(options("--script", str(file)))


def test_a_missing_file_and_a_bad_rate_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert upstream.run(options("--script", "/nowhere.yaml")) == 2
    assert "/nowhere.yaml" in capsys.readouterr().err
    assert upstream.run(options("--error-rate", "7")) == 2
    assert "error_rate" in capsys.readouterr().err


def test_it_serves_until_it_is_told_to_stop() -> None:
    code = (
        "import sys; from predawn.proxy.commands import upstream as u; import argparse; p = argparse.ArgumentParser(); "
    )
    code += "u.add_parser(p.add_subparsers()); o = p.parse_args(); sys.exit(o.run(o))"
    with subprocess.Popen(
        [sys.executable, "-c", code, "upstream", "scripted", "--port", "0", "--text", "hi"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        base_url = process.stdout.readline().rpartition(" ")[2].strip()
        with urllib.request.urlopen(f"{base_url}/models") as reply:
            models = json.load(reply)
        process.send_signal(signal.SIGTERM)

    assert models["data"][0]["id"] == "scripted"
    assert process.returncode == 0


def test_a_port_in_use_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert upstream.run(options("--port", "1", "--host", "192.0.2.1")) == 1
    assert "cannot listen on 192.0.2.1:1" in capsys.readouterr().err
