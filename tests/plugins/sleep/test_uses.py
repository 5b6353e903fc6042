"""What a use saved, what of its cost it bears, and what was regretted."""

import asyncio

import pytest

from predawn.plugins.sleep.contexts import Anticipated, Notes
from predawn.plugins.sleep.drafts import Draft
from predawn.plugins.sleep.matches import Match
from predawn.plugins.sleep.shelf import Shelf
from predawn.plugins.sleep.uses import Answered, Books, Injected
from predawn.proxy.store_errors import StoreError
from predawn.proxy.tasks import Tasks

NOTES = Notes("n" * 32, "ctx", 1, "accepted", "- because", 10, 2, 1_700_000_000.0, 900, "m")
MATCH = Match("acme", "ctx", 1, 1, 100, notes_id=NOTES.id, notes=NOTES)
USED = Injected(MATCH, "notes", NOTES)


def answered(output, number=1, *, at=1_700_000_060.0):
    return Answered(f"x{number}", "m", at, output)


@pytest.fixture
async def shelf(store, clock):
    shelf = Shelf(store, clock)
    for tenant in ("acme", "other"):
        await shelf.put(tenant, Draft.of(tenant, [{"role": "user", "content": "text"}], id="ctx"), most=9)
    return shelf


@pytest.fixture
def books(shelf, clock):
    return Books(shelf, clock)


async def test_tokens_saved_are_told_from_answers_without_notes(books):
    for output in (100, 200):
        await books.plain(MATCH, answered(output))
    use, _ = await books.used(USED, answered(40))

    assert (use.tokens_saved, use.age_s, use.kind, use.notes_id) == (110, 60, "notes", NOTES.id)


async def test_where_nothing_is_known_nothing_was_saved(books):
    use, _ = await books.used(USED, answered(40))

    assert use.tokens_saved == 0


async def test_an_answer_that_is_no_measure_saves_nothing_and_teaches_nothing(books, shelf):
    await books.plain(MATCH, answered(100))
    await books.plain(MATCH, answered(None))
    use, _ = await books.used(USED, answered(None))
    await books.flush()

    assert use.tokens_saved == 0
    assert (await shelf.estimate("acme", "ctx", "m", "plain")).count == 1
    assert await shelf.estimate("acme", "ctx", "m", "noted") is None


async def test_means_are_written_together_and_read_again(books, shelf, clock):
    for output in (100, 200, 300):
        await books.plain(MATCH, answered(output))
    await books.used(USED, answered(50))
    await books.flush()
    await books.plain(MATCH, answered(400))
    await books.flush()
    again = Books(shelf, clock)
    use, _ = await again.used(USED, answered(10, 2))

    assert use.tokens_saved == pytest.approx(240)
    assert (await shelf.estimate("acme", "ctx", "m", "noted")).mean == 50


async def test_each_of_the_expected_uses_bears_an_equal_part_and_later_ones_nothing(books, shelf):
    await shelf.decide("acme", "ctx", 1, {"expected_uses": 3.2})
    shares = [(await books.used(USED, answered(10, number)))[1] for number in range(5)]

    assert shares == [300, 300, 300, 0, 0]


async def test_what_earlier_uses_bore_is_remembered(books, shelf, clock):
    await shelf.decide("acme", "ctx", 1, {"expected_uses": 2})
    await books.used(USED, answered(10))
    await books.flush()
    again = Books(shelf, clock)

    assert [(await again.used(USED, answered(10, number)))[1] for number in (2, 3)] == [450, 0]


async def test_a_hint_bears_its_answers_cost_as_well(books):
    answer = Anticipated("a" * 32, "ctx", 1, "Why?", "why", "Because.", verified=True, sleep_tokens=100)
    _, share = await books.used(Injected(MATCH, "hint", NOTES, answer), answered(10))

    assert share == 100


async def test_uses_are_booked_once_to_their_tenant(books, shelf):
    await books.used(USED, answered(10))
    await books.flush()
    await books.flush()

    assert [use.exchange_id for use in await shelf.uses("acme", "ctx")] == ["x1"]
    assert await shelf.uses("other", "ctx") == []
    assert (await shelf.get("acme", "ctx")).uses == 1


async def test_a_use_that_is_not_written_yet_can_be_regretted(books, shelf):
    await books.used(USED, answered(10))

    assert await books.regret("other", "x1") == 0
    assert await books.regret("acme", "x1") == 1
    assert [use.regret for use in await shelf.uses("acme", "ctx")] == [True]


async def test_what_the_store_does_not_take_is_written_later(books, shelf, monkeypatch):
    await books.used(USED, answered(10))
    with monkeypatch.context() as broken:

        async def fails(*_):
            raise StoreError("down")

        broken.setattr(shelf, "observe", fails)
        with pytest.raises(StoreError):
            await books.flush()
    await books.flush()

    assert len(await shelf.uses("acme", "ctx")) == 1
    assert (await shelf.estimate("acme", "ctx", "m", "noted")).count == 1


async def test_nothing_is_kept_of_a_context_that_is_gone(books, shelf):
    await books.plain(MATCH, answered(100))
    await books.used(USED, answered(10))
    await shelf.forget("acme", "ctx")
    await books.flush()

    assert await shelf.uses("acme", "ctx") == []
    assert await shelf.estimate("acme", "ctx", "m", "plain") is None


async def test_of_a_forgotten_context_nothing_waits_for_a_new_one_of_its_name(books, shelf):
    await books.plain(MATCH, answered(100))
    books.forget("acme", "ctx")
    await books.used(USED, answered(None))
    await books.flush()

    assert await shelf.estimate("acme", "ctx", "m", "plain") is None


async def test_what_is_being_written_can_be_waited_for(books, shelf, monkeypatch):
    begun, may_end = asyncio.Event(), asyncio.Event()
    observe = shelf.observe

    async def slowly(*row):
        begun.set()
        await may_end.wait()
        await observe(*row)

    monkeypatch.setattr(shelf, "observe", slowly)
    await books.plain(MATCH, answered(100))
    tasks = Tasks()
    flush = tasks.spawn(books.flush(), "flush")
    await begun.wait()
    settled = tasks.spawn(books.settle(), "settle")
    await asyncio.sleep(0)
    was_done = settled.done()
    may_end.set()
    await settled

    assert (was_done, flush.done()) == (False, True)
    assert await shelf.estimate("acme", "ctx", "m", "plain") is not None
