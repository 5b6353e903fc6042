"""A server whose sockets the tests play by hand."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.proxy.fastlane.sides import Sides, sides


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Sides]:
    async with sides(str(tmp_path / "state.db")) as made:
        yield made
