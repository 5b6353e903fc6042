"""The live page in a real browser. Run by `make test-page`; without `-m browser` these tests are left out."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.page.browser import Browser, Tab, browser, chromium
from tests.page.site import Site, site

HERE = Path(__file__).parent
LEFT_OUT = pytest.StashKey[int]()
MISSING = (
    "The tests of the live page need Chromium, and there is none: install it (Debian: apt-get install chromium), "
    "or put a chromium or google-chrome on the PATH."
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    mine = [item for item in items if HERE in item.path.parents]
    if not mine:
        return
    if re.search(r"\bbrowser\b", config.option.markexpr):
        if chromium() is None:
            pytest.exit(MISSING, returncode=2)
        return
    items[:] = [item for item in items if HERE not in item.path.parents]
    config.hook.pytest_deselected(items=mine)
    config.stash[LEFT_OUT] = len(mine)


def pytest_terminal_summary(terminalreporter, config):
    if count := config.stash.get(LEFT_OUT, 0):
        terminalreporter.write_line(f"{count} tests in a real browser were left out: `make test-page` runs them")


@pytest.fixture
async def chrome() -> AsyncIterator[Browser]:
    program = chromium()
    assert program is not None, MISSING
    async with browser(program) as running:
        yield running


@pytest.fixture
async def tab(chrome: Browser) -> AsyncIterator[Tab]:
    async with chrome.tab() as opened:
        yield opened


@pytest.fixture
def settings() -> Mapping[str, Any]:
    """Overridden by tests that want another server."""
    return {}


@pytest.fixture
async def here(settings: Mapping[str, Any]) -> AsyncIterator[Site]:
    async with site(settings) as running:
        yield running
