import re
from random import Random

import pytest

from predawn.kernels.tiny import language, lessons, tokenizer, world
from predawn.kernels.tiny.lessons import Curriculum, Piece

KINDS = (
    lessons.stepwise,
    lessons.one_step,
    lessons.direct,
    lessons.from_notes,
    lessons.writing_notes,
    lessons.saying_again,
    lessons.sums,
    lessons.plans,
)


def drawn(kind, count=100, curriculum=None):
    random = Random(kind.__name__)
    return [kind(random, curriculum or Curriculum()) for _ in range(count)]


def text(pieces):
    return "".join(piece.text for piece in pieces)


@pytest.mark.parametrize("kind", KINDS)
def test_every_turn_that_is_begun_is_ended(kind):
    for pieces in drawn(kind):
        roles = sum(text(pieces).count(role) for role in (tokenizer.SYSTEM, tokenizer.USER, tokenizer.ASSISTANT))

        assert roles == text(pieces).count(tokenizer.END)


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_the_assistant_says_is_learnt(kind):
    for pieces in drawn(kind):
        learnt = "".join(piece.text for piece in pieces if piece.weight)

        assert learnt
        assert tokenizer.USER not in learnt
        assert tokenizer.SYSTEM not in learnt


def test_steps_without_slips_are_right():
    for pieces in drawn(lessons.stepwise):
        if "Wait" in text(pieces):
            continue
        answer = language.last_number(text(pieces))
        name = text(pieces).partition("<think> ")[2].split()[0].rstrip(".")

        assert dict(language.claims(text(pieces)))[name] == answer


def test_anyone_may_be_asked_about():
    ends = set()
    for pieces in drawn(lessons.stepwise):
        told, _, question = text(pieces).partition("How many")
        asked = question.partition(" does ")[2].split()[0]
        ends.add(re.findall(r"(\w+) has", told)[-1] == asked)

    assert ends == {True, False}


def test_a_slip_is_built_on_and_never_put_right_unasked():
    slipped = drawn(lessons.stepwise, curriculum=Curriculum(8, 1.0))
    weights = {piece.weight for pieces in slipped for piece in pieces if "Wait" in piece.text}

    assert weights == {0.0}


def test_a_wrong_result_that_is_put_right_is_not_learnt():
    for pieces in drawn(lessons.stepwise):
        for piece in pieces:
            if "Wait" in piece.text:
                assert piece.weight == 0


def test_answers_at_once_are_asked_deepest_first():
    for pieces in drawn(lessons.direct):
        asked = [piece.text for piece in pieces if piece.text.startswith(tokenizer.USER)]
        names = [question.rpartition(" does ")[2].split()[0] for question in asked]
        order = [text(pieces[:4]).index(f"{name} has") for name in names if f"{name} has" in text(pieces[:4])]

        assert order == sorted(order, reverse=True)


def test_the_curriculum_bounds_the_depth():
    for pieces in drawn(lessons.stepwise, curriculum=Curriculum(1)):
        assert text(pieces).count(" from ") <= 1


def test_all_kinds_are_drawn():
    random = Random(0)
    drawn_texts = [text(lessons.lesson(random, Curriculum())) for _ in range(200)]

    assert all(one.startswith(tokenizer.BEGIN) for one in drawn_texts)
    assert any("Notes:" in one for one in drawn_texts)
    assert any("<think>" in one for one in drawn_texts)


def test_pieces_are_not_learnt_unless_said():
    assert Piece("x").weight == 0


def test_sums_are_right():
    for pieces in (lessons.sums(Random(seed), Curriculum()) for seed in range(20)):
        for left, operation, operand, result in re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)\.", text(pieces)):
            assert world.apply(int(left), operation, int(operand)) == int(result)


def test_what_is_one_step_away_is_told_right():
    for pieces in (lessons.one_step(Random(seed), Curriculum()) for seed in range(40)):
        told = text(pieces).partition(tokenizer.END)[0]
        for name, value in language.claims(text(pieces)):
            assert f"{name} has" in told
            assert 0 <= value <= world.LARGEST


def test_a_plan_names_whom_each_number_comes_from_until_one_who_was_told():
    for pieces in (lessons.plans(Random(seed), Curriculum()) for seed in range(40)):
        told, _, said = text(pieces).partition(tokenizer.ANSWER)
        for plan in said.removesuffix(tokenizer.END).split("."):
            *chain, last = plan.split(" from ")

            assert all(
                re.search(rf"{name.strip()} has [^.]* than|{name.strip()} has [^.]* as many", told) for name in chain
            )
            assert not last.strip() or re.search(rf"{last.strip()} has \d+ \w+\.", told)
