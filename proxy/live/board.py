"""Rows that plugins show on the live page: contexts, jobs, whatever is not an exchange.

    withdraw = app.live.offer("contexts", self.rows)      # in `lifespan`; `withdraw()` after the `yield`

The source is asked once a second, only while somebody watches, and never twice at once; more rarely if it takes long.
Its rows are mappings of plain values, without anything that a client said.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from predawn.proxy.live.glance import LONGEST_ID, number, word

if TYPE_CHECKING:
    from predawn.proxy.tasks import Tasks

Row: TypeAlias = Mapping[str, Any]
Source: TypeAlias = "Callable[[], Awaitable[Sequence[Row]]]"
MOST_ROWS = 100
MOST_COLUMNS = 24
TIMEOUT_S = 2.0
REST_AFTER_FAILURE = 30
"""Turns in which a source that failed is left alone."""
SHARE = 0.03
"""Part of the time in which a source may be at work: one that takes 0.3 s is asked every ten seconds or so."""


class Board:
    """What plugins offer, by name."""

    def __init__(self, timer: Callable[[], float] = perf_counter) -> None:
        self._timer = timer
        self._sources: dict[str, Source] = {}
        self._resting: dict[str, int] = {}
        self._shown: dict[str, msgspec.Raw | None] = {}

    def offer(self, name: str, source: Source) -> Callable[[], None]:
        """Show what `source` returns as long as nobody else offers this name; call what is returned to withdraw it."""
        self._sources[name] = source
        self._resting.pop(name, None)
        self._shown.pop(name, None)

        def withdraw() -> None:
            if self._sources.get(name) is source:
                del self._sources[name]
                self._shown.pop(name, None)

        return withdraw

    @property
    def names(self) -> list[str]:
        return list(self._sources)

    async def read(self, tasks: Tasks) -> dict[str, msgspec.Raw | None]:
        """The rows of each source as JSON, as they were if it rests; `None` for one that failed or took too long."""
        for name, source in tuple(self._sources.items()):
            if (left := self._resting.get(name, 0)) > 0:
                self._resting[name] = left - 1
                continue
            began = self._timer()
            rows = await _asked(name, source, tasks)
            if self._sources.get(name) is source:  # nobody else has taken its place meanwhile
                self._shown[name] = rows
                turns = int((self._timer() - began) / SHARE)
                self._resting[name] = REST_AFTER_FAILURE if rows is None else min(turns, REST_AFTER_FAILURE)
        return {name: self._shown.get(name) for name in self._sources}


async def _asked(name: str, source: Source, tasks: Tasks) -> msgspec.Raw | None:
    import asyncio  # 15 ms that `import predawn.plugins` need not pay

    task = tasks.spawn(_rows(source), f"live.{name}")  # which logs what it raises
    try:
        await asyncio.wait([task], timeout=TIMEOUT_S)
    finally:
        task.cancel()
    return task.result() if task.done() and not task.cancelled() and task.exception() is None else None


async def _rows(source: Source) -> msgspec.Raw:
    rows = [_plain(row) for row in list(await source())[:MOST_ROWS]]
    return msgspec.Raw(msgspec.json.encode(rows))


def _plain(row: Row) -> dict[str, Any]:
    return {word(name): _value(value) for name, value in list(row.items())[:MOST_COLUMNS]}


def _value(value: Any) -> str | float | bool | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return number(value)
    text = str(value)
    return word(text if len(text) <= LONGEST_ID else f"{text[: LONGEST_ID - 1]}…", LONGEST_ID)
