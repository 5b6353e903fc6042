"""Plugin authors' types: what they write is clean under `mypy --strict`, and their mistakes are found."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
MARK = re.compile(r"# E: ([\w, -]+)$")
FOUND = re.compile(r":(\d+): error: .*\[([\w-]+)\]$")


def mypy(name: str, cache: Path) -> str:
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--cache-dir",
        str(cache),
        "--config-file",
        "",
        str(HERE / name),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cache, timeout=110)
    return done.stdout + done.stderr


def test_what_authors_write_is_clean(tmp_path_factory) -> None:
    assert "no issues found" in mypy("author.py", tmp_path_factory.getbasetemp())


def test_what_authors_get_wrong_is_found(tmp_path_factory) -> None:
    lines = (HERE / "mistakes.py").read_text(encoding="utf-8").splitlines()
    expected = {
        (number, kind.strip())
        for number, line in enumerate(lines, 1)
        if (mark := MARK.search(line))
        for kind in mark[1].split(",")
    }

    told = mypy("mistakes.py", tmp_path_factory.getbasetemp())
    actual = {(int(found[1]), found[2]) for line in told.splitlines() if (found := FOUND.search(line))}

    assert actual == expected, told
