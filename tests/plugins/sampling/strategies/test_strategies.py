"""Each strategy by itself."""

from __future__ import annotations

import math

import pytest
from tests.plugins.sampling.strategies.driver import Driver, answered, passed, said

# -- vote


def test_a_vote_draws_no_more_than_could_settle_it() -> None:
    driver = answered("vote", [42], samples=16)
    assert driver.stop is not None

    assert (driver.waves, driver.started, driver.stop.why, driver.stop.agreement) == ([3], 3, "settled", 1.0)


def test_a_vote_draws_on_where_answers_differ() -> None:
    driver = Driver("vote", samples=16).answer(41, 42, 42)

    assert driver.stop is None
    assert driver.waves[0] == 3
    assert driver.answer(42, 42, 42, 42).answered == 42


def test_a_vote_that_cannot_be_overtaken_ends() -> None:
    driver = answered("vote", [1, 2, 1, 1], samples=4, epsilon=1e-9)
    assert driver.stop is not None

    assert (driver.answered, driver.started, driver.stop.confidence) == (1, 4, 1.0)


def test_a_vote_with_as_many_least_samples_as_samples_draws_all_at_once() -> None:
    assert Driver("vote", samples=16, min_samples=16).waves == [16]


@pytest.mark.parametrize("answers", [[41, 42, 42, 42, 42], [42, 42, 41, 42, 42], [42, 42, 42, 42, 41]])
def test_a_vote_of_five_takes_the_four(answers: list[int]) -> None:
    assert answered("vote", answers, samples=5, min_samples=5).answered == 42


def test_answers_that_cannot_be_compared_are_judged() -> None:
    driver = Driver("vote", samples=16).answer(
        said(None, text="An ode"), said(None, text="A poem"), said(None, text="A song")
    )
    assert driver.asked is not None
    driver.judge(lambda left, right: right).judge(lambda left, right: right)
    assert driver.stop is not None

    assert (driver.started, driver.stop.winner, driver.stop.why, driver.stop.agreement) == (3, 2, "judged", None)


def test_answers_that_cannot_be_compared_are_one_of_them_without_a_judge() -> None:
    driver = answered("vote", [None], samples=16, fallback="single")
    assert driver.stop is not None

    assert (driver.started, driver.stop.winner, driver.stop.why) == (3, 0, "incomparable")


def test_one_comparable_answer_among_others_is_not_a_vote() -> None:
    driver = answered("vote", [None, 7, None], samples=3, min_samples=3, fallback="single")
    assert driver.stop is not None

    assert (driver.stop.why, driver.stop.agreement) == ("incomparable", None)


def test_answers_that_all_differ_are_not_a_vote() -> None:
    driver = answered("vote", [1, 2, 3, 4], samples=4)

    assert driver.asked is not None


def test_a_sample_that_fails_is_made_up_for() -> None:
    driver = Driver("vote", samples=16).fail().answer(42, 42)

    assert driver.stop is None
    assert driver.answer(42).answered == 42


# -- first_m_of_k


def test_the_first_that_end_vote_and_the_rest_is_given_up() -> None:
    driver = Driver("first_m_of_k", samples=8, first=3).answer(7, 8, 8)
    assert driver.stop is not None

    assert (driver.waves, driver.answered, driver.stop.why) == ([8], 8, "enough")
    assert len(driver.running) == 5


def test_answers_that_were_cut_off_are_not_among_the_first() -> None:
    driver = Driver("first_m_of_k", samples=4, first=2).answer(said(1, finish_reason="length"), 2)

    assert driver.stop is None
    assert driver.answer(2).answered == 2


# -- confidence


def test_unsure_answers_count_less() -> None:
    unsure, sure = said(1, worst_logprob=-3.0), said(2, worst_logprob=-0.05)

    assert answered("confidence", [unsure, unsure, sure, sure], samples=4, min_samples=4).answered == 2


def test_a_sample_that_becomes_unsure_is_given_up() -> None:
    driver = Driver("confidence", samples=16, min_samples=8)
    driver.answer(*(said(number, worst_logprob=-0.1 * number) for number in (1, 2, 3, 4)))
    victim, other = driver.running[:2]
    driver.grow(other, worst_logprob=-0.05).grow(victim, worst_logprob=-2.0)

    assert driver.cancelled == [victim]
    assert other in driver.running


def test_nothing_is_given_up_before_enough_have_ended() -> None:
    driver = Driver("confidence", samples=16, min_samples=8).answer(said(1, worst_logprob=-0.1))

    assert driver.grow(driver.running[0], worst_logprob=-50.0).cancelled == []


def test_a_sample_is_not_given_up_for_its_first_words() -> None:
    driver = Driver("confidence", samples=16, min_samples=8)
    driver.answer(*(said(number, worst_logprob=-0.1, mean_logprob=-0.1) for number in (1, 2, 3, 4)))

    assert driver.grow(driver.running[0], mean_logprob=-5.0).cancelled == []


def test_without_log_probabilities_confidence_is_a_vote() -> None:
    driver = answered("confidence", [42], samples=16)

    assert (driver.started, driver.answered) == (3, 42)


def test_a_logprob_that_is_no_number_is_none() -> None:
    assert answered("confidence", [said(1, worst_logprob=math.nan)], samples=8).answered == 1


# -- best_of


def test_the_first_that_is_verified_is_the_answer() -> None:
    driver = Driver("best_of", samples=8)
    driver.answer(said(1, verdicts=passed("violation")), said(2, verdicts=passed("pass", "unsure")))
    assert driver.stop is not None

    assert (driver.waves, driver.answered, driver.stop.why) == ([2], 2, "verified")


def test_waves_double_until_one_is_verified() -> None:
    driver = answered("best_of", [said(1, verdicts=passed("violation"))], samples=8)
    assert driver.stop is not None

    assert (driver.waves, driver.stop.why) == ([2, 4, 2], "exhausted")


def test_the_fewest_violations_win_and_then_the_votes() -> None:
    bad, worse = passed("violation"), passed("violation", "violation")
    drawn = [said(9, verdicts=worse), said(1, verdicts=bad), said(2, verdicts=bad), said(2, verdicts=bad)]

    assert answered("best_of", drawn, samples=4).answered == 2


def test_without_verdicts_a_judge_chooses_among_all() -> None:
    driver = answered(
        "best_of", [said(1, text="one"), said(2, text="two"), said(3, text="three"), said(4, text="four")], samples=4
    )
    driver.judge(lambda left, right: left).judge(lambda left, right: left)

    assert driver.answered == 1


# -- judge


def test_a_judge_is_not_asked_about_equal_answers() -> None:
    driver = answered("judge", [5], samples=4)
    assert driver.stop is not None

    assert (driver.started, driver.asked, driver.stop.why) == (4, None, "settled")


def test_pairs_are_compared_until_one_is_left() -> None:
    driver = answered("judge", [said(None, text=f"text {number}") for number in range(5)], samples=5)
    rounds = 0
    while driver.stop is None:
        driver.judge(max)
        rounds += 1

    assert (rounds, driver.stop.winner, driver.stop.why) == (3, 4, "judged")


def test_a_judge_is_asked_only_about_answers_that_have_a_following() -> None:
    driver = answered("judge", [said(number, text=str(number)) for number in (1, 1, 1, 2, 2, 3)], samples=6)
    assert driver.asked is not None
    driver.judge(lambda left, right: left)

    assert driver.answered in {1, 2}


def test_each_text_is_judged_once() -> None:
    driver = answered("judge", [said(None, text=text) for text in ("a", "b", "a ", "b")], samples=4)
    assert driver.asked is not None

    assert len(driver.asked) == 1


def test_a_judge_that_does_not_know_leaves_it_to_the_plainer() -> None:
    drawn = [said(None, text="Perhaps so", tokens=3), said(None, text="It is so", tokens=3)]
    driver = answered("judge", drawn, samples=2).judge(lambda left, right: None)
    assert driver.stop is not None

    assert driver.stop.winner == 1


@pytest.mark.parametrize("answers", [(6, 7, 6, 7, 7), (7, 7, 6, 7, 6)])
def test_a_judge_that_does_not_know_leaves_it_to_the_majority(answers: tuple[int, ...]) -> None:
    """The lesser answer has the plainer text, which decides only between equals."""
    driver = Driver("judge", samples=5).answer(*(said(answer, tokens=answer) for answer in answers))
    driver.judge(lambda left, right: None)

    assert driver.answered == 7


def test_a_text_that_was_given_more_often_is_the_majoritys() -> None:
    texts = ["Perhaps an ode", "A song", "Perhaps an ode"]
    driver = Driver("judge", samples=3).answer(*(said(None, text=text) for text in texts))
    driver.judge(lambda left, right: None)
    assert driver.stop is not None

    assert driver.finished[driver.stop.winner or 0].text == "Perhaps an ode"


# -- revise


def test_a_revision_sees_the_attempts_before_it() -> None:
    driver = Driver("revise", samples=8, rounds=3).answer(1, 2, 3)
    assert driver.stop is not None

    assert (driver.seeing, driver.stop.why, driver.answered) == ([(), (0,), (0, 1)], "exhausted", 3)


def test_a_revision_that_changes_nothing_is_the_last() -> None:
    driver = Driver("revise", samples=8, rounds=5).answer(1, 2, 2)
    assert driver.stop is not None

    assert (driver.started, driver.stop.why, driver.stop.winner) == (3, "unchanged", 2)


def test_texts_are_unchanged_if_their_words_are() -> None:
    driver = Driver("revise", samples=8, rounds=5).answer(said(None, text="so  it is"), said(None, text="so it\nis"))
    assert driver.stop is not None

    assert driver.stop.why == "unchanged"


def test_a_verified_attempt_is_not_revised() -> None:
    driver = Driver("revise", samples=8, rounds=5).answer(said(1, verdicts=passed("pass")))
    assert driver.stop is not None

    assert (driver.started, driver.stop.why) == (1, "verified")


def test_a_refuted_attempt_is_revised_even_if_it_is_repeated() -> None:
    refuted = said(1, verdicts=passed("violation"))
    driver = Driver("revise", samples=8, rounds=3).answer(refuted, refuted)

    assert driver.stop is None
    assert driver.answer(2).answered == 2


def test_a_revision_that_fails_leaves_the_attempt_before_it() -> None:
    driver = Driver("revise", samples=8, rounds=3).answer(1).fail()

    assert driver.answered == 1


# -- hedge


def test_a_second_request_is_sent_when_the_first_is_late() -> None:
    driver = Driver("hedge", samples=2, hedge_after_s=0.7)
    assert (driver.waves, driver.alarm) == ([1], 0.7)

    driver.wake().grow(1, tokens=1)
    assert driver.stop is not None

    assert (driver.waves, driver.stop.winner, driver.stop.why) == ([1, 1], 1, "first")


def test_the_first_request_that_begins_in_time_is_alone() -> None:
    driver = Driver("hedge", samples=2, hedge_after_s=0.7).grow(0, tokens=1)
    assert driver.stop is not None

    assert (driver.waves, driver.stop.winner) == ([1], 0)


def test_without_a_known_tail_nothing_is_sent_twice() -> None:
    assert Driver("hedge", samples=2, hedge_after_s=math.inf).alarm is None


def test_a_hedge_whose_first_request_fails_waits_for_the_second() -> None:
    driver = Driver("hedge", samples=2).wake().fail(0)

    assert driver.stop is None
    assert driver.answer(3).answered == 3


# -- waves


def test_the_knob_goes_from_cheap_to_thorough() -> None:
    drawn = [1, 2, 1, 3, 1, 1, 2, 1, 1, 4, 1, 2, 1, 1, 1, 1]
    cost = [answered("waves", drawn, samples=16, beta=beta).started for beta in (0.0, 0.5, 1.0)]

    assert cost == sorted(cost)
    assert cost[0] < cost[-1]


def test_waves_stop_where_no_more_can_be_won() -> None:
    driver = answered("waves", [42], samples=16)
    assert driver.stop is not None

    assert driver.started <= 4
    assert driver.stop.why in {"settled", "unprofitable"}


# -- the time is up


@pytest.mark.parametrize("name", ["vote", "waves", "confidence", "judge", "first_m_of_k"])
def test_when_the_time_is_up_the_leader_is_the_answer(name: str) -> None:
    driver = Driver(name, samples=16, min_samples=16, first=16, beta=1.0, epsilon=1e-9).answer(41, 42, 42).hurry()
    assert driver.stop is not None

    assert (driver.answered, driver.stop.why) == (42, "late")
    assert driver.stop.agreement == pytest.approx(2 / 3)


def test_when_the_time_is_up_the_least_refuted_is_the_answer() -> None:
    worse, bad = passed("violation", "violation"), passed("violation")
    driver = Driver("best_of", samples=8, min_samples=4).answer(said(1, verdicts=worse), said(2, verdicts=bad)).hurry()

    assert driver.answered == 2


def test_when_the_time_is_up_the_latest_attempt_is_the_answer() -> None:
    driver = Driver("revise", samples=8, rounds=5).answer(1, 2).hurry()

    assert driver.answered == 2


def test_when_the_time_is_up_a_judges_first_rounds_count() -> None:
    driver = Driver("judge", samples=4).answer(*(said(None, text=text) for text in ("a", "b", "c", "d")))
    driver.judge(max).hurry()
    assert driver.stop is not None

    assert driver.stop.winner in {1, 3}
