"""`predawn worker` reads the servers' settings in its own way."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

import pytest

from predawn.proxy.commands import worker
from predawn.proxy.settings import Settings

FILE = """
server: {port: 8080, admin_port: 9090, workers: 4, drain_grace_s: 5, drain_timeout_s: 7}
jobs: {concurrency: 3, keep_finished_h: 1}
"""


def read(folder: Path, *arguments: str) -> Settings:
    file = folder / "predawn.yaml"
    file.write_text(FILE)
    parser = ArgumentParser()
    worker.add_parser(parser.add_subparsers())
    return worker.loader(parser.parse_args(["worker", "--config", str(file), *arguments]))()


def test_a_worker_takes_any_admin_port_and_waits_for_nobody(tmp_path: Path) -> None:
    settings = read(tmp_path)

    assert settings.server.admin_port == 0
    assert settings.server.drain_grace_s == 0
    assert settings.server.workers == 1
    assert settings.server.drain_timeout_s == 7
    assert settings.jobs.concurrency == 3


def test_the_command_line_comes_first(tmp_path: Path) -> None:
    settings = read(tmp_path, "--concurrency", "8", "--admin-port", "9999")

    assert settings.server.admin_port == 9999
    assert (settings.jobs.concurrency, settings.jobs.keep_finished_h) == (8, 1)


def test_broken_settings_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "predawn.yaml"
    file.write_text("jobs: {concurrency: 0}")
    parser = ArgumentParser()
    worker.add_parser(parser.add_subparsers())
    options = parser.parse_args(["worker", "--config", str(file)])

    assert worker.run(options) == 1
    assert "jobs.concurrency" in capsys.readouterr().err
