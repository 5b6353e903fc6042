"""What `confidence` has learnt survives restarts, and is nobody else's."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from predawn.plugins import App, hookimpl
from predawn.plugins.sampling import SamplingPlugin, SamplingSettings
from predawn.plugins.sampling.keeping import PAUSE_S, RETENTION_S, Keeping
from predawn.plugins.sampling.strategies.trust import Place, Trust
from predawn.plugins.testing import ManualClock, settle, workbench
from predawn.proxy.store import Store, open_store
from predawn.proxy.store_errors import StoreError
from predawn.proxy.tables import sampling_trust

REQUEST: dict[str, Any] = {
    "messages": [{"role": "user", "content": "How much is 6 times 7?"}],
    "predawn": {"sampling": {"strategy": "confidence"}},
}
HERE, THERE = Place("me", "m", "low"), Place("you", "m", "low")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await open_store(str(tmp_path / "state.db"))
    yield opened
    await opened.aclose()


class Kept(SamplingPlugin):
    """Keeps what it learns where the test says."""

    store: Store | None = None
    app: App

    @hookimpl
    async def lifespan(self, app: App) -> AsyncIterator[None]:
        self.app = dataclasses.replace(app, store=self._opened)
        async for _ in super().lifespan(self.app):
            yield

    async def _opened(self) -> Store:
        if self.store is None:
            raise StoreError("it is gone")
        return self.store


def kept(store: Store | None) -> Kept:
    plugin = Kept(SamplingSettings())
    plugin.store = store
    return plugin


async def drawn(store: Store | None, times: int) -> list[int]:
    """How many samples each of so many requests took; from the second one on the store has been read."""
    plugin = kept(store)
    async with workbench(plugin, upstream="It is 42.") as bench:
        results = [await bench.run(REQUEST)]
        if store is not None:
            await plugin.replying.keeping.flush()
        results += [await bench.run(REQUEST) for _ in range(times - 1)]
    return [int(result.headers["x-predawn-samples"]) for result in results]


async def rows(store: Store) -> list[Any]:
    async with store.read() as connection:
        return list((await connection.execute(select(sampling_trust))).mappings().all())


async def test_one_sure_answer_is_enough_after_a_restart_too(store: Store) -> None:
    first, second = await drawn(store, 15), await drawn(store, 6)

    assert (first[0], first[-1]) == (3, 1)
    assert second[1:] == [1] * 5
    assert sum(second) < sum(first[:6])


async def test_a_store_that_cannot_be_used_keeps_nobody_from_learning() -> None:
    taken = await drawn(None, 15)

    assert (taken[0], taken[-1]) == (3, 1)


async def test_requests_of_other_strategies_open_no_store(tmp_path: Path) -> None:
    plugin = kept(None)
    async with workbench(plugin, upstream="It is 42.") as bench:
        await bench.run({**REQUEST, "predawn": {"sampling": {"strategy": "vote", "samples": 3}}})
        assert plugin.replying is not None

        assert plugin.replying.keeping._task is None


async def keeping(store: Store) -> AsyncIterator[tuple[Keeping, ManualClock]]:
    plugin = kept(store)
    async with workbench(plugin, upstream="It is 42.") as bench:
        assert isinstance(bench.clock, ManualClock)
        yield Keeping(plugin.app), bench.clock


def teach(trust: Trust, times: int, *, confirmed: bool = True) -> None:
    for at in range(times):
        trust.learn(-at / 1000, confirmed=confirmed)


async def test_what_was_written_is_read_again_for_its_own_place_only(store: Store) -> None:
    async for first, _ in keeping(store):
        teach(first.of(HERE), 40)
        first.of(THERE)
        await first.flush()
        teach(first.of(HERE), 3, confirmed=False)
        await first.flush()
    async for second, _ in keeping(store):
        mine, theirs = second.of(HERE), second.of(THERE)
        await second.flush()

        assert [confirmed for _, confirmed in mine.known] == [True] * 40 + [False] * 3
        assert mine.known[1] == (-0.001, True)
        assert theirs.known == []
    assert [row["tenant"] for row in await rows(store)] == ["me"]


async def test_what_nobody_adds_to_is_deleted(store: Store) -> None:
    async for first, _ in keeping(store):
        teach(first.of(HERE), 1)
        await first.flush()
    async for second, clock in keeping(store):
        await clock.advance(RETENTION_S + 1)
        second.of(THERE)
        await second.flush()

    assert await rows(store) == []


async def test_rows_of_another_version_are_passed_over(store: Store) -> None:
    strange: list[Any] = [[-0.5, 1], [0.1], "x", [None, 1], [-0.25, [1]], [-0.75, 0]]
    async with store.begin() as connection:
        row = {**HERE._asdict(), "known": strange, "at": 1e12}
        await connection.execute(sampling_trust.insert().values(**row))
    async for one, _ in keeping(store):
        trust = one.of(HERE)
        await one.flush()

        assert trust.known == [(-0.5, True), (-0.75, False)]


async def test_it_is_written_behind_the_request_while_the_server_runs(store: Store) -> None:
    async with workbench(kept(store), upstream="It is 42.") as bench:
        await bench.run(REQUEST)
        assert isinstance(bench.clock, ManualClock)
        for _ in range(200):
            await settle()
            await bench.clock.advance(PAUSE_S)
            if await rows(store):
                break

        assert [len(row["known"]) for row in await rows(store)] == [3]
