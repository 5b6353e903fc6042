from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.kernels.tiny import world
from predawn.kernels.tiny.world import Aside, Fact

told = st.builds(
    lambda seed, depth, distractors: world.story(Random(seed), depth, distractors),
    st.integers(0, 10**9),
    st.integers(0, world.DEEPEST),
    st.integers(0, world.MOST_DISTRACTORS),
)


@given(told)
def test_every_number_follows_from_what_was_told_before_it(story):
    known = {}
    for fact in story.facts:
        if fact.parent is not None:
            assert fact.value == world.apply(known[fact.parent], fact.operation, fact.operand)
        known[fact.name] = fact.value


@given(told)
def test_numbers_stay_within_what_has_a_token(story):
    numbers = [fact.value for fact in story.facts] + [fact.operand for fact in story.facts]

    assert all(0 <= number <= world.LARGEST for number in numbers)
    assert all(fact.value >= 1 for fact in story.facts)


@given(told)
def test_halves_are_exact(story):
    known = {fact.name: fact.value for fact in story.facts}

    assert all(known[fact.parent] % 2 == 0 for fact in story.facts if fact.operation == "/")


@given(told)
def test_the_chain_of_the_question_is_as_long_as_its_depth(story):
    chain = story.chain(story.asked)

    assert [fact.depth for fact in chain] == list(range(story.depth + 1))
    assert chain[-1].value == story.answer


@given(told)
def test_nobody_appears_twice(story):
    names = [sentence.name for sentence in story.sentences]

    assert len(names) == len(set(names))


@given(st.integers(0, 10**9))
def test_a_seed_always_tells_the_same_story(seed):
    first, second = (world.story(Random(seed), 4, 3) for _ in range(2))

    assert first == second


def test_distractors_come_in_all_kinds():
    random = Random(0)
    stories = [world.story(random, 1, 3) for _ in range(50)]
    extra = [sentence for story in stories for sentence in story.sentences if sentence.name != story.asked]

    assert any(isinstance(one, Aside) for one in extra)
    assert any(isinstance(one, Fact) and one.parent is not None for one in extra)


def test_an_unknown_name_is_a_key_error():
    with pytest.raises(KeyError, match="Nobody"):
        world.story(Random(0), 1, 0).fact("Nobody")
