"""What verdicts and agreement say of how good an answer was."""

import pytest

from predawn.plugins import Verdict
from predawn.plugins.budget.outcomes import UNDISPUTED, judge
from predawn.plugins.sampling.result import SamplingResult


def said(*verdicts: tuple[str, int]) -> list[Verdict]:
    return [Verdict(outcome, choice=choice) for outcome, choice in verdicts]


@pytest.mark.parametrize(
    ("verdicts", "is_spoilt"),
    [
        ([("violation", 0), ("pass", 0)], False),
        ([("pass", 0), ("violation", 0)], True),
        ([("violation", 0), ("pass", 1)], True),
        ([("violation", 0), ("violation", 1), ("pass", 0), ("pass", 1)], False),
        ([("violation", 0), ("unsure", 0)], True),
    ],
)
def test_an_answer_is_spoilt_by_the_last_word_on_any_of_its_choices(verdicts, is_spoilt):
    quality = judge(said(*verdicts), None).quality

    assert (quality == 0.1) is is_spoilt


def test_of_samples_only_the_chosen_one_is_judged():
    chosen = SamplingResult("vote", 2, 1.0, "settled", 90, 1, choice=1)

    assert judge(said(("violation", 0), ("pass", 1)), chosen).quality == UNDISPUTED
    assert judge(said(("pass", 0), ("violation", 1)), chosen).quality == 0.1


def test_nobody_knows_without_a_sure_word():
    assert judge(said(("unsure", 0)), None).quality is None
