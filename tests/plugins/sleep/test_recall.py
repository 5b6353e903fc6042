"""What requests need beside the notes is asked of the store once."""

import pytest

from predawn.plugins.sleep.contexts import Anticipated, Notes
from predawn.plugins.sleep.matches import Match
from predawn.plugins.sleep.recall import Recall

MATCH = Match("acme", "ctx", 1, 1, 100)
NOTES = Notes("n" * 32, "ctx", 1, "accepted", "- Ann earns 36", 10, 2, 0.0, 900, "m")


def anticipated(question, normalised, *, verified=True, context="ctx"):
    return Anticipated(question, context, 1, question, normalised, "Because.", verified=verified)


class Shelf:
    """Counts how often it is asked."""

    def __init__(self):
        self.asked = 0
        self.meanwhile = lambda: None

    async def anticipated(self, tenant, context_id, version):
        self.asked += 1
        self.meanwhile()
        assert (tenant, version) == ("acme", 1)
        return [
            anticipated("Why?", "why", context=context_id),
            anticipated("How?", "how", verified=False, context=context_id),
        ]


@pytest.fixture
def shelf():
    return Shelf()


async def test_the_store_is_asked_once(shelf):
    recall = Recall(shelf)
    found = [await recall.of(MATCH, NOTES) for _ in range(3)]

    assert shelf.asked == 1
    assert found[0] is found[2]
    assert "36" in found[0].words


async def test_only_verified_answers_are_found_by_their_question(shelf):
    found = await Recall(shelf).of(MATCH, NOTES)

    assert found.answer_to("  WHY? ").answer == "Because."
    assert found.answer_to("How?") is None
    assert len(found.guesses) == 2


async def test_what_changed_is_asked_for_again(shelf):
    recall = Recall(shelf)
    await recall.of(MATCH, None)
    await recall.of(MATCH, NOTES)
    recall.drop("acme", "ctx")
    await recall.of(MATCH, NOTES)

    assert (shelf.asked, len(recall)) == (3, 1)


async def test_what_is_forgotten_while_it_is_read_is_not_kept(shelf):
    recall = Recall(shelf)
    shelf.meanwhile = lambda: recall.drop("acme", "ctx")
    await recall.of(MATCH, NOTES)

    assert (len(recall), recall.bytes) == (0, 0)


async def test_memory_is_bounded(shelf):
    recall = Recall(shelf, most=3)
    for number in range(9):
        await recall.of(Match("acme", f"c{number}", 1, 1, 100), NOTES)

    assert len(recall) == 3
    small = Recall(shelf, most_bytes=1)
    for number in range(9):
        await small.of(Match("acme", f"c{number}", 1, 1, 100), NOTES)
    assert len(small) == 1
    small.drop("acme", "c8")
    assert small.bytes == 0
