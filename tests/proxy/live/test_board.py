import asyncio

import msgspec
import pytest

from predawn.proxy.live.board import MOST_COLUMNS, MOST_ROWS, REST_AFTER_FAILURE, SHARE, Board
from predawn.proxy.live.glance import LONGEST_ID
from predawn.proxy.tasks import Tasks


def rows_of(*rows):
    async def source():
        return rows

    return source


async def read(board: Board, tasks: Tasks):
    return msgspec.json.decode(msgspec.json.encode(await board.read(tasks)))


async def test_rows_are_shown_under_their_name(tasks: Tasks) -> None:
    board = Board()
    board.offer("jobs", rows_of({"name": "dream", "left": 3, "done": 0.5, "on": True, "why": None}))

    assert await read(board, tasks) == {"jobs": [{"name": "dream", "left": 3, "done": 0.5, "on": True, "why": None}]}


async def test_what_is_withdrawn_is_gone_and_a_later_offer_stays(tasks: Tasks) -> None:
    board = Board()
    first = board.offer("jobs", rows_of({"by": "old"}))
    board.offer("jobs", rows_of({"by": "new"}))
    first()

    assert await read(board, tasks) == {"jobs": [{"by": "new"}]}

    other = board.offer("other", rows_of())
    other()

    assert board.names == ["jobs"]


async def test_nothing_a_row_holds_can_spoil_the_page(tasks: Tasks) -> None:
    board = Board()
    hostile = {
        "\ud800": "\udfff" * 2 * LONGEST_ID,
        "big": 1 << 200,
        "nan": float("nan"),
        "list": ["x" * 200],
        7: object(),
    }
    board.offer("jobs", rows_of(hostile, *({str(n): n for n in range(100)} for _ in range(500))))

    shown = (await read(board, tasks))["jobs"]

    assert len(shown) == MOST_ROWS
    assert len(shown[1]) == MOST_COLUMNS
    assert (shown[0]["big"], shown[0]["nan"]) == (0, 0)
    assert max(len(str(value)) for row in shown for value in row.values()) == LONGEST_ID


async def test_a_source_that_fails_is_left_alone_for_a_while_and_spoils_no_other(tasks: Tasks, caplog) -> None:
    asked = 0

    async def broken():
        nonlocal asked
        asked += 1
        raise RuntimeError("no such table")

    board = Board()
    board.offer("broken", broken)
    board.offer("well", rows_of({"a": 1}))

    for _ in range(REST_AFTER_FAILURE + 1):
        assert await read(board, tasks) == {"broken": None, "well": [{"a": 1}]}

    assert asked == 1
    await read(board, tasks)
    assert asked == 2
    assert "no such table" in caplog.text


async def test_a_source_that_takes_long_is_asked_rarely_and_its_rows_stay(tasks: Tasks) -> None:
    now, asked = 0.0, 0

    async def slow():
        nonlocal now, asked
        asked += 1
        now += 10 * SHARE
        return [{"asked": asked}]

    board = Board(lambda: now)
    board.offer("slow", slow)

    seen = [(await read(board, tasks))["slow"][0]["asked"] for _ in range(12)]

    assert seen == [1] * 11 + [2]


async def test_what_is_offered_instead_is_asked_at_once_and_shows_nothing_of_the_other(tasks: Tasks) -> None:
    async def fails():
        raise RuntimeError("no")

    board = Board()
    board.offer("jobs", rows_of({"by": "old"}))
    await read(board, tasks)
    board.offer("jobs", fails)
    assert await read(board, tasks) == {"jobs": None}
    board.offer("jobs", rows_of({"by": "new"}))

    assert await read(board, tasks) == {"jobs": [{"by": "new"}]}


async def test_a_source_that_hangs_is_cancelled(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("predawn.proxy.live.board.TIMEOUT_S", 0.01)
    cancelled = asyncio.Event()

    async def hangs():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    board = Board()
    board.offer("slow", hangs)

    assert await read(board, tasks) == {"slow": None}
    async with asyncio.timeout(1):
        await cancelled.wait()
