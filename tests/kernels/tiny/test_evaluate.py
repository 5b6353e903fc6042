import math
from random import Random

import pytest

from predawn.kernels.tiny import evaluate, language
from predawn.kernels.tiny.evaluate import Written

TOLD = evaluate.stories(48, "test")


class Oracle:
    """Writes what is right, but for the share of answers that `wrong` draws."""

    def __init__(self, wrong=0.0):
        self.random, self.wrong = Random(1), wrong

    def write(self, prompts, *, max_tokens, temperature=0.0, n=1):
        return [[self.written(prompt) for _ in range(n)] for prompt in prompts]

    def written(self, prompt):
        text = prompt.messages[0]["content"]
        story = next(story for story in TOLD if text.startswith(language.tell(story)))
        if text.endswith(language.SLEEP_REQUESTS[0]):
            return Written(language.worked_notes(story), 50)
        answer = story.answer if self.random.random() >= self.wrong else 100
        if len(prompt.messages) > 1:
            return Written(self.continued(story, prompt.messages[1]["reasoning_content"]), 30)
        if not prompt.thinking:
            return Written(f" {answer}", 2)
        return Written(f" thinking 5 </think> {answer}", 60)

    def continued(self, story, begun):
        told = language.last_number(begun)
        name = language.claims(begun)[-1][0]
        chain = story.chain(story.asked)
        place = [fact.name for fact in chain].index(name)
        if place == len(chain) - 1:
            return f" </think> {told}"
        return f" {told} {chain[place + 1].operation} 1 = 5. </think> 5"


def measured(writer):
    return evaluate.measure(writer, TOLD, "test", lambda what: None)


def test_who_is_always_right_reaches_every_target_but_those_that_want_mistakes():
    found = {target.name: target.holds for target in evaluate.targets(measured(Oracle()))}
    missed = [name for name, holds in found.items() if not holds]

    assert missed == ["direct, 4 steps and more", "vote of 16 over a single sample, points"]


def test_who_is_mostly_wrong_reaches_few():
    found = [target.name for target in evaluate.targets(measured(Oracle(0.8))) if target.holds]

    assert "stepwise, greedy" not in found
    assert "direct with right notes, worst depth" not in found


def test_a_vote_is_worth_something_to_who_errs_at_random():
    scores = measured(Oracle(0.2))

    assert scores["vote of 16"].share() - scores["single sample"].share() > 0.1


@pytest.mark.parametrize(
    "change", [lambda notes: notes.replace("= ", "= 1"), lambda notes: notes + " Zed = 4.", lambda notes: notes[:20]]
)
def test_notes_with_one_thing_wrong_are_wrong(change):
    story = TOLD[3]
    notes = language.worked_notes(story)

    assert evaluate.notes_are_right(story, notes)
    assert not evaluate.notes_are_right(story, change(notes))


def test_reasoning_that_was_cut_off_is_no_answer():
    answers = [evaluate._answer(Written(text, 9), thinking=True) for text in (" Ann = 7.", " Ann = 5. </think> 7")]

    assert answers == [None, 7]
    assert evaluate._answer(Written(" 7", 2), thinking=False) == 7


def test_every_depth_is_asked_as_often():
    depths = [story.depth for story in TOLD]

    assert {depth: depths.count(depth) for depth in set(depths)} == dict.fromkeys(range(1, 9), 6)


def test_no_score_is_not_a_number_rather_than_nought():
    assert math.isnan(evaluate.Scores().share())


@pytest.mark.parametrize("counterfactual", [False, True])
def test_going_on_with_the_wrong_number_does_not_count(counterfactual):
    for story in TOLD:
        begun, used = evaluate._broken(Random(story.asked), story, counterfactual=counterfactual)
        right = Oracle().continued(story, begun)
        told = language.last_number(begun)

        assert used(right)
        assert not used(right.replace(f" {told}", " 77" if told != 77 else " 78"))
