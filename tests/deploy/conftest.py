"""deploy/ under the tools that will read it: Helm, compose, hadolint, promtool, systemd, bubblewrap.

Run by `make test-deploy`. Without `-m deploy` these tests are left out, and the summary says so. A tool that is missing
skips its tests with the name of what to install.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

HERE = Path(__file__).parent
LEFT_OUT = pytest.StashKey[int]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    if re.search(r"\bdeploy\b", config.option.markexpr):
        return
    mine = [item for item in items if HERE in item.path.parents]
    if mine:
        items[:] = [item for item in items if HERE not in item.path.parents]
        config.hook.pytest_deselected(items=mine)
        config.stash[LEFT_OUT] = len(mine)


def pytest_terminal_summary(terminalreporter, config):
    if count := config.stash.get(LEFT_OUT, 0):
        terminalreporter.write_line(f"{count} tests of deploy/ were left out: `make test-deploy` runs them")


@pytest.fixture
def tool():
    """The path of a program, or a skip that names the package it comes from."""

    def find(name: str, package: str) -> str:
        path = shutil.which(name) or shutil.which(name, path=str(HERE.parents[1] / ".venv" / "bin"))
        if path is None:
            pytest.skip(f"{name} is not here: install {package}")
        return path

    return find
