"""`predawn check`: every error with its line, or what would be served."""

from __future__ import annotations

from pathlib import Path

import pytest

from predawn.proxy.cli import main

GOOD = """\
upstreams:
  - {name: vllm, base_url: http://localhost:8000/v1}
  - {name: other, base_url: http://localhost:8001/v1}
  - {name: unused, base_url: http://localhost:8002/v1}
models:
  - {name: qwen, upstream: vllm, model: Qwen/Qwen3-8B, fallbacks: [both]}
  - name: both
    targets: [{upstream: vllm, weight: 3}, {upstream: other}]
plugins: [record]
"""
BAD = """\
server: {prot: 1}
plugins:
  - recrd
  - redact: {paterns: []}
"""


def check(tmp_path: Path, text: str) -> int:
    path = tmp_path / "predawn.yaml"
    path.write_text(text, encoding="utf-8")
    return main(["check", str(path)])


def test_a_good_file_is_summed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = check(tmp_path, GOOD)
    lines = capsys.readouterr().out.splitlines()

    assert status == 0
    assert lines[1:] == [
        "listens on 127.0.0.1:8080, admin on 127.0.0.1:9080",
        "models",
        "  qwen → vllm as Qwen/Qwen3-8B; falls back to both",
        "  both → vllm (75%), other (25%)",
        "plugins, in this order",
        "  1. record",
        "note: no model uses the upstream unused",
    ]


def test_errors_of_settings_and_plugins_are_shown_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = check(tmp_path, BAD)
    *lines, last = capsys.readouterr().err.splitlines()
    found = [line.partition("predawn.yaml:")[2] for line in lines]

    assert status == 1
    assert found[:2] == [
        "1: server.prot: unknown key — did you mean 'port'?",
        "3: plugins[0].recrd: there is no plugin 'recrd' — did you mean 'record'?",
    ]
    assert any(line.startswith("4: plugins[1].redact.paterns: unknown key") for line in found)
    assert last == f"{len(lines)} problems"


def test_a_missing_file_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["check", str(tmp_path / "absent.yaml")])

    assert status == 1
    assert "absent.yaml: No such file or directory" in capsys.readouterr().err
