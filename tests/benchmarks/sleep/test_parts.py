"""The parts of the sleep benchmark that decide by arithmetic alone."""

import json
import math
import random
from decimal import Decimal

import pytest
from tests.benchmarks.sleep import preemption, problems, results, stories
from tests.benchmarks.sleep.asking import Graded, Way, Wording
from tests.benchmarks.sleep.cases import Case, Question, all_named
from tests.benchmarks.sleep.clerk import QUESTIONS, Call, Wanted, answer, read
from tests.benchmarks.sleep.crash import most_in_a_life, repeated_by_kill
from tests.benchmarks.sleep.curves import Economics, Tokens, economics, interval, mean, median
from tests.benchmarks.sleep.endpoint import cheapest_equal
from tests.benchmarks.sleep.grading import is_right, last_number, sentences
from tests.benchmarks.sleep.journal import Journal
from tests.benchmarks.sleep.preemption import BETWEEN, ENDING, IDLE, Times
from tests.benchmarks.sleep.site import Answer

from predawn.plugins.sleep import prompts
from predawn.plugins.sleep.anticipation import read_questions
from predawn.plugins.sleep.checking import read_verdicts
from predawn.plugins.sleep.notes import read_notes
from predawn.plugins.sleep.prefix import split_question
from predawn.plugins.sleep.worth import Prices

# Grading.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("She makes $18.", "18"),
        ("It is 1,250,000 in all", "1250000"),
        ("about 3.50.", "3.5"),
        ("first 3, then 4, so 7", "7"),
        ("16-3-4 = 9 eggs", "9"),
        ("it falls to -5", "-5"),
        ("$.75", "0.75"),
        (" 60", "60"),
    ],
)
def test_an_answer_is_its_last_number_without_signs_and_full_stop(text, expected):
    assert last_number(text) == Decimal(expected)


def test_equal_numbers_are_right_however_they_are_written_and_no_number_is_wrong():
    assert is_right("That makes $1,000.00.", "1000")
    assert not is_right("I do not know.", "1000")
    assert not is_right("10", "100")


def test_sentences_end_at_marks_with_a_space_after_them_and_never_within_a_decimal():
    assert sentences("He pays $2.50 each. Why? He can!  Yes.") == ["He pays $2.50 each.", "Why?", "He can!", "Yes."]


# Arithmetic.


def test_break_even_is_where_a_query_costs_the_same_either_way():
    found = Economics(asleep=400, plain=70, noted=2)
    even = found.break_even(10)

    assert even is not None
    assert found.per_query(even, 10) == pytest.approx(10 * found.plain)
    assert found.break_even(1) == pytest.approx(10 * even)


def test_sleep_that_saves_nothing_never_breaks_even():
    assert Economics(asleep=400, plain=70, noted=70).break_even(10) is None
    assert Economics(asleep=400, plain=70, noted=90).break_even(10) is None


def test_prompts_cost_their_share_and_cached_ones_less():
    prices = Prices(ratio=10, prompt_weight=0.2, cached_weight=0.05)

    assert Tokens(prompt=100, cached=40, output=10).cost(prices) == pytest.approx(10 + 12 + 2)


def test_without_prices_output_tokens_alone_count():
    found = economics(Tokens(500, 0, 300), Tokens(70, 0, 60), Tokens(90, 0, 2), prices=None)

    assert (found.asleep, found.plain, found.noted) == (300, 60, 2)


def test_an_interval_holds_the_mean_and_is_wider_where_questions_of_a_context_fall_together():
    draw = random.Random(3)
    apart = [[float(draw.random() < 0.7) for _ in range(5)] for _ in range(60)]
    together = [[float(draw.random() < 0.7)] * 5 for _ in range(60)]
    low, high = interval(apart, seed=1)
    wide_low, wide_high = interval(together, seed=1)

    assert low <= mean([value for group in apart for value in group]) <= high
    assert wide_high - wide_low > 1.5 * (high - low)


def test_nothing_has_no_mean_median_or_interval():
    assert math.isnan(mean([]))
    assert math.isnan(median([]))
    assert all(map(math.isnan, interval([], seed=1)))


def test_a_median_lies_in_the_middle():
    assert [median([3, 1, 2]), median([4, 1, 2, 3])] == [2, 2.5]


# Cases.


def test_stories_are_the_same_from_a_seed_and_more_of_them_begin_with_the_fewer():
    assert stories.cases(12, "a")[:5] == stories.cases(5, "a")
    assert stories.cases(5, "a") != stories.cases(5, "b")


def test_each_story_asks_about_five_people_and_about_three_things_that_notes_cannot_hold():
    for case in stories.cases(40, "test"):
        kinds = [question.kind for question in case.questions]

        assert kinds == ["foreseeable"] * stories.ASKED + ["other noun", "news, apart", "news"]
        assert len({question.text for question in case.questions}) == len(kinds) - 1
        assert all(question.depth for question in case.questions if question.is_foreseeable)
        assert case.questions[-1].text.split()[0] not in case.context


def test_a_story_and_its_question_are_cut_apart_again_by_the_servers_rule():
    wording = Wording("m")
    for _, case, question in all_named(stories.cases(10, "test"), foreseeable=True):
        (message,) = wording.body(case, question, Way("w", sleeps=True))["messages"]
        split = split_question([message], "last_sentence")

        assert split is not None
        assert (split.context["content"], split.question["content"]) == (case.context, question.text)


def test_a_problem_and_its_question_are_cut_apart_again_whatever_is_said_after_it():
    wording = Wording("m", gap="\n\n")
    for _, case, question in all_named(problems.cases(30), foreseeable=True):
        way = Way("w", sleeps=True, instruction="Answer with the number alone.")
        split = split_question(wording.body(case, question, way)["messages"], "last_paragraph")

        assert split is not None
        assert split.context["content"] == case.context


def test_a_problem_asks_its_last_sentence_and_the_steps_before_the_last():
    case = problems.case(
        "p",
        "Janet has 16 eggs. She eats 3.5 of them. How many does she sell for $2 each?",
        "How many are left? ** She has 16 - 3.5 = <<16-3.5=12.5>>12.5 left.\n"
        "How much does she make? ** She makes 12.5 * 2 = $<<12.5*2=25>>25.\n#### 25",
    )

    assert case == Case(
        "p",
        "Janet has 16 eggs. She eats 3.5 of them.",
        (Question("How many does she sell for $2 each?", "25"), Question("How many are left?", "12.5")),
    )
    assert problems.case("q", "How many is 1 + 1?", "#### 2") is None


# The journal.


def test_a_journal_goes_on_where_it_stopped_and_drops_a_line_that_was_cut_off(tmp_path):
    path = tmp_path / "deep" / "answers.jsonl"
    with Journal(path) as journal:
        journal.add("plain/a", [1])
        journal.add("noted/a", [2])
    with path.open("a") as file:
        file.write('["noted/b", [3')
    with Journal(path) as journal:
        journal.add("noted/c", [4])

    with Journal(path) as journal:
        assert len(journal) == 3
        assert "noted/b" not in journal
        assert dict(journal.under("noted/")) == {"a": [2], "c": [4]}


# Results.


def answered(case, right, output, depth=1):
    return Graded(case, Question("?", "1", depth=depth), Answer("1", Tokens(50, 0, output), 0.01, 0.02), right)


def test_an_answer_survives_the_journal():
    kept = answered("a", right=True, output=3).answer

    assert Answer.of(json.loads(json.dumps(kept.as_json()))) == kept


def test_what_is_gained_is_told_in_points_on_the_same_questions():
    plain = [answered("a", right=True, output=60), answered("b", right=False, output=60)]
    noted = [answered("a", right=True, output=2), answered("b", right=True, output=60)]

    assert results.gained(plain, noted)["points"] == 50
    assert results.from_notes(plain, noted) == 0.5


def test_scores_tell_right_answers_by_depth():
    found = results.scores([answered("a", right=True, output=2, depth=3), answered("a", right=False, output=4)])

    assert (found["right"], found["output_tokens"]) == (0.5, 3)
    assert found["right_by_depth"] == {"1": 0.0, "3": 1.0}


def test_costs_mark_the_break_even_at_each_ratio():
    found = results.costs(Economics(asleep=300, plain=62, noted=2))

    assert found["t=10"]["break_even_queries"] == pytest.approx(0.5)
    assert found["t=1"]["break_even_queries"] == pytest.approx(5)
    assert found["t=10"]["with_sleep"]["1"] == 320


def test_the_cheapest_way_that_is_right_as_often_is_compared_else_the_one_that_is_right_most_often():
    thorough = [answered("a", right=True, output=90), answered("b", right=False, output=90)]
    cheap_wrong = [answered("a", right=False, output=2), answered("b", right=False, output=2)]
    cheap = [answered("a", right=False, output=9), answered("b", right=True, output=9)]
    dear = [answered("a", right=True, output=80), answered("b", right=True, output=80)]

    assert cheapest_equal(thorough, [cheap_wrong, dear, cheap]) is cheap
    assert cheapest_equal(dear, [cheap_wrong, cheap]) is cheap


# The crash test.


def lives(*digests):
    return [[Call(digest, digest.lower(), 0.0) for digest in life] for life in digests]


def test_a_repeated_call_is_charged_to_each_kill_that_ended_a_life_in_which_it_was_made():
    assert repeated_by_kill(lives("ab", "c", "bd", "ce")) == [1, 1, 0]
    assert repeated_by_kill(lives("ab")) == []


def test_two_calls_of_one_step_are_one_step_done_again():
    assert repeated_by_kill(lives("aAb", "aA")) == [1]


def test_a_call_made_twice_between_two_kills_is_seen():
    assert most_in_a_life(lives("ab", "a", "")) == 1
    assert most_in_a_life(lives("ab", "bcb")) == 2


def test_the_clerk_says_what_sleep_can_read_and_more_with_every_pass():
    context = [{"role": "user", "content": "This is document 7. harbour ledger."}]
    notes = ""
    for facts in (1, 2, 3):
        notes = read_notes(answer(prompts.rethink(context, notes, 5000)[-1]["content"]))

        assert len(notes.splitlines()) == facts
    claims = prompts.check(context, notes.splitlines())[-1]["content"]
    asked = prompts.questions(context, notes, 3)[-1]["content"]

    assert [verdict for verdict, _ in read_verdicts(answer(claims)).values()] == ["right"] * 3
    assert len(read_questions(answer(asked), 5)) == QUESTIONS
    assert read("document 7 … What is fact 2 of 7?") == Wanted("7", "answer", 2)


# Preemption.


def times(idle, ending, between):
    found = Times()
    for state, seconds in ((IDLE, idle), (ENDING, ending), (BETWEEN, between)):
        for first_s in seconds:
            found.add("conversation", state, first_s)
    return preemption.figures(found)


def test_the_bar_of_preemption_goes_by_all_requests_that_came_while_it_slept():
    found = times([0.01, 0.01], [0.02], [0.01, 0.01])
    (bar,) = preemption.bars(found).values()

    assert bar.value == 1
    assert found["conversation"]["sleeping, ending a call"]["p50_s"] == 0.02


def test_preemption_that_never_happened_has_no_figure():
    (bar,) = preemption.bars(times([0.01], [], [0.01])).values()

    assert bar.value is None
    assert bar.reason
