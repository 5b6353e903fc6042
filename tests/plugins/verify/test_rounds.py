"""Answers are read in rounds: soon where there are few, together where there are many, and never for long."""

import asyncio

import pytest

from predawn.plugins.testing import settle
from predawn.plugins.verify import rounds
from predawn.plugins.verify.rounds import Rounds


class Pile:
    """An answer of so many pieces that are not read."""

    def __init__(self, pieces, order):
        self.left = pieces
        self.order = order

    def read(self):
        self.order.append(self)
        self.left -= 1
        return self.left > 0


async def test_what_comes_of_a_few_is_read_in_the_next_turn():
    order, made = [], Rounds()
    made.open = 1
    made.add(Pile(1, order))
    await settle()

    assert len(order) == 1


async def test_what_comes_of_many_is_read_together_a_little_later():
    order, made, loop = [], Rounds(), asyncio.get_running_loop()
    made.open = 100
    piles = [Pile(1, order) for _ in range(100)]
    began = loop.time()
    for pile in piles:
        made.add(pile)
    await settle()
    assert order == []
    async with asyncio.timeout(5):
        while len(order) < 100:
            await asyncio.sleep(0)

    assert order == piles
    assert loop.time() - began >= 100 * rounds.EACH_S * 0.9


async def test_answers_are_read_by_turns():
    order, made = [], Rounds()
    first, second = Pile(2, order), Pile(2, order)
    made.add(first)
    made.add(second)
    await settle()

    assert order == [first, second, first, second]


@pytest.mark.parametrize("pieces", [1, 7])
async def test_others_get_their_turn_once_the_slice_is_over(pieces, monkeypatch):
    monkeypatch.setattr(rounds, "SLICE_S", 0.0)
    order, made, between = [], Rounds(), []
    made.add(Pile(pieces, order))
    while len(order) < pieces:
        await asyncio.sleep(0)
        between.append(len(order))

    assert between == sorted(set(between))


async def test_an_answer_that_raises_does_not_keep_others_from_being_read():
    class Breaks(Pile):
        def read(self):
            raise KeyError("no")

    order, made = [], Rounds()
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    made.add(Breaks(1, order))
    made.add(Pile(1, order))
    await settle()
    made.add(Pile(1, order))
    await settle()

    assert len(order) == 2
