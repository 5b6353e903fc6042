"""The slow suite, marked `prometheus`, runs by `make test-dashboards`; a run that leaves it out says so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
LEFT_OUT = pytest.StashKey[int]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items) -> None:
    if re.search(r"\bprometheus\b", config.option.markexpr):
        return
    mine = [item for item in items if HERE in item.path.parents and item.get_closest_marker("prometheus")]
    if mine:
        items[:] = [item for item in items if item not in mine]
        config.hook.pytest_deselected(items=mine)
        config.stash[LEFT_OUT] = len(mine)


def pytest_terminal_summary(terminalreporter, config) -> None:
    if count := config.stash.get(LEFT_OUT, 0):
        terminalreporter.write_line(f"{count} tests against a real Prometheus were left out: `make test-dashboards`")
