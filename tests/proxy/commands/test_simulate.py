"""`predawn simulate`: the table, the JSON, the picture, and what is said of a file that cannot be read."""

from __future__ import annotations

import importlib.util
import io
import json
from pathlib import Path

import pytest

from predawn.proxy.cli import main
from predawn.proxy.commands import simulate


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    path = tmp_path / "recorded.jsonl"
    lines = [
        {
            "answer": "42",
            "branches": [{"tokens": 10, "answer": "42" if (number + place) % 4 else "41"} for place in range(8)],
        }
        for number in range(20)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_strategies_are_compared_in_a_table(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["simulate", str(recorded), "--strategy", "single", "--strategy", "vote@8:epsilon=0.01"])
    header, single, vote, count = capsys.readouterr().out.splitlines()

    assert status == 0
    assert header.startswith("strategy")
    assert single.split()[:2] == ["single", "75.0%"]
    assert vote.split()[:2] == ["vote@8:epsilon=0.01", "100.0%"]
    assert count == "20 problems"


def test_without_a_strategy_the_usual_ones_are_compared(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["simulate", str(recorded)])

    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:-1]] == list(simulate.DEFAULT)


def test_json_has_the_figures(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["simulate", str(recorded), "--strategy", "vote@8", "--json", "-"])
    printed = json.loads(capsys.readouterr().out)
    main(["simulate", str(recorded), "--strategy", "vote@8", "--json", str(tmp_path / "out.json")])

    assert printed == json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert printed["rows"][0]["accuracy"] > 0.9
    assert printed["rows"][0]["samples"] < 8


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs matplotlib")
def test_a_picture_is_drawn(recorded: Path, tmp_path: Path) -> None:
    assert main(["simulate", str(recorded), "--plot", str(tmp_path / "out.png")]) == 0
    assert (tmp_path / "out.png").stat().st_size > 1000
    assert main(["simulate", str(recorded), "--plot", str(tmp_path / "out.nonsense")]) == 1


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.touch()

    assert main(["simulate", str(tmp_path / "absent.jsonl")]) == 1
    assert "absent.jsonl" in capsys.readouterr().err
    assert main(["simulate", str(empty)]) == 1
    assert "no problems" in capsys.readouterr().err


def test_an_unknown_strategy_is_answered_with_those_there_are(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", str(recorded), "--strategy", "votes"]) == 1
    assert "first_m_of_k" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [["--repeat", "0"], ["--at-once", "0"], ["--token-s", "0"], ["--judge-tokens", "-1"], ["--judge-accuracy", "2"]],
)
def test_values_out_of_range_are_refused(recorded: Path, wrong: list[str]) -> None:
    assert main(["simulate", str(recorded), *wrong]) == 2


def test_a_big_file_shows_a_bar_on_a_terminal(
    recorded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(simulate, "BIG", 1)
    monkeypatch.setattr("sys.stderr", terminal)
    main(["simulate", str(recorded), "--strategy", "single"])

    assert "100%" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r")


def test_a_small_file_or_a_pipe_shows_none(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["simulate", str(recorded), "--strategy", "single"])

    assert capsys.readouterr().err == ""
