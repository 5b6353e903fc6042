"""The parts of the budget benchmark that decide by arithmetic alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.benchmarks.budget import played, problems, run
from tests.benchmarks.budget.adaptive import AMPLE, TIGHT, Costs, Plan, answers, details, outcomes
from tests.benchmarks.budget.played import Outcomes
from tests.benchmarks.budget.problems import Problem
from tests.benchmarks.budget.recording import is_sound, surety, ways
from tests.benchmarks.budget.site import Upstream
from tests.benchmarks.budget.worth import adaptive_bars, best, compared, early_bars, hull, of_equal_tokens, points
from tests.benchmarks.sleep.journal import Journal

from predawn.proxy.settings import Settings


def came_to(name, right, tokens, count=4):
    """A way of asking with a share of right answers at so many tokens."""
    return Outcomes(name, [right] * count, [tokens] * count, [0.0] * count)


# Problems and answers.


def test_stories_of_a_seed_are_the_same_and_none_comes_twice():
    told = problems.stories(40, "a")

    assert told == problems.stories(40, "a")
    assert {one.question for one in told}.isdisjoint(one.question for one in problems.stories(40, "b"))
    assert sorted({one.depth for one in told}) == list(range(1, 9))
    assert len({one.question for one in told}) == 40


def test_school_problems_have_whole_questions_and_numbers_for_answers():
    asked = problems.school(3)

    assert all(problems.is_right(f"So it is {one.answer}.", one.answer) for one in asked)


@pytest.mark.parametrize(("text", "is_right"), [("7", True), ("4 and 7.", True), ("1,007", False), ("", False)])
def test_the_last_number_is_the_answer(text, is_right):
    assert problems.is_right(text, "7") is is_right


@pytest.mark.parametrize(
    ("thought", "expected"),
    [("3 + 4 = 7. 7 * 2 = 14. 14 / 2 = 7.", True), ("3 + 4 = 8.", False), ("7 / 2 = 3.", False), ("1 / 0 = 0.", False)],
)
def test_a_thought_is_sound_if_all_its_equations_are(thought, expected):
    assert is_sound(thought) is expected


def test_short_answers_have_no_least_sure_stretch():
    assert surety([-1.0, -3.0]) == {"mean_logprob": -2.0}
    assert surety([0.0] * 40 + [-3.2]) == {"mean_logprob": -0.078, "worst_logprob": -0.1}
    assert not surety([])


# Strategies on recorded answers.


def record(texts, direct="7"):
    branches = [{"tokens": 10, "text": text, "sound": text == "7"} for text in texts]
    single = [{"tokens": 2, "text": direct}]
    return {
        **{"id": "a", "question": "How many?", "answer": "7", "prompt_tokens": 5, "depth": 1},
        **{"branches": branches, "direct": single, "greedy": branches[:1], "greedy_direct": single},
    }


def test_all_ways_play_the_same_answers_and_their_prompts_count_but_for_the_first():
    found = played.play([record(["8", *["7"] * 7])], samples=8)

    assert found["vote of 8"].accuracy == 1.0
    assert found["vote of 8"].tokens == 8 * 10 + 7 * 5
    assert found["vote@8, stops early"].tokens < found["vote of 8"].tokens
    assert found[played.THINK].accuracy == 7 / 8
    assert found[played.THINK].tokens == 10
    assert found[played.DIRECT].tokens == 2


def test_best_of_takes_the_answer_whose_equations_are_right():
    found = played.play([record(["8", "8", "8", "7", "8", "8", "8", "8"])], samples=8)

    assert found[played.CHECKED].accuracy == 1.0
    assert found["vote of 8"].accuracy == 0.0


def test_answers_that_nobody_checked_are_not_played_by_checks():
    unchecked = record(["7"] * 8)
    for branch in unchecked["branches"]:
        del branch["sound"]

    assert played.CHECKED not in played.play([unchecked], samples=8)


@pytest.mark.parametrize("samples", [8, 16, 32, 64])
def test_every_way_that_bars_speak_of_is_played(samples):
    found = {name: came_to(name, 0.5, 10.0) for name in (*played.uniform(samples), *played.stopping(samples))}

    assert len(early_bars(found, samples)) == 2
    assert [way.count for way in ways(samples)][0] == samples


# What adaptive spending is compared with.


def test_settings_that_a_mixture_of_others_beats_are_not_on_the_hull():
    cheap, middling, good = came_to("cheap", 0.2, 2.0), came_to("middling", 0.3, 50.0), came_to("good", 0.9, 100.0)
    wasteful = came_to("wasteful", 0.9, 400.0)

    assert [one.name for one in hull([good, wasteful, cheap, middling])] == ["cheap", "good"]


def test_a_fixed_budget_of_equal_tokens_is_the_best_mixture():
    cheap, good = came_to("cheap", 0.2, 0.0), came_to("good", 0.8, 100.0)
    half = of_equal_tokens([cheap, good], 50.0)

    assert half.right == pytest.approx([0.5] * 4)
    assert of_equal_tokens([cheap, good], 500.0).right == pytest.approx([0.8] * 4)
    assert of_equal_tokens([cheap, good], 500.0).name == "good"
    assert half.name == "50% cheap, 50% good"


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(1, 1000)), min_size=1, max_size=8),
    st.floats(1, 1000),
)
def test_no_single_setting_that_is_no_dearer_beats_the_mixture(settings, tokens):
    made = [came_to(str(at), right, cost) for at, (right, cost) in enumerate(settings)]
    mixture = of_equal_tokens(made, tokens)
    affordable = [one.accuracy for one in made if one.tokens <= tokens]

    assert sum(mixture.right) / 4 >= max(affordable, default=0.0) - 1e-9


def test_of_equally_good_settings_the_cheaper_one_is_best():
    assert best([came_to("dear", 0.9, 9.0), came_to("cheap", 0.9, 3.0), came_to("bad", 0.1, 1.0)]).name == "cheap"


def test_differences_are_taken_problem_by_problem():
    same = points([1.0, 0.0], [1.0, 0.0])

    assert same == {"points": 0.0, "standard_error": 0.0}
    assert points([1.0, 1.0], [1.0, 0.0])["points"] == 50.0


def everything(accuracy, tokens):
    """All ways that bars compare with, alike but for single answers."""
    found = {name: came_to(name, accuracy, tokens) for name in (*played.uniform(8), *played.stopping(8))}
    return found | {played.DIRECT: came_to(played.DIRECT, 0.2, 2.0), played.THINK: came_to(played.THINK, 0.8, 50.0)}


def test_bars_of_the_whole_are_of_one_run_and_name_their_rivals():
    bars = adaptive_bars({AMPLE: compared(everything(0.9, 100.0), came_to("ample", 0.9, 40.0), 8)})

    assert all(bar.holds for bar in bars.values())
    assert len(bars) == 3
    assert "at once" in bars["adaptive: over a fixed budget of equal mean tokens"].reason


def test_settings_weighed_by_sureness_are_rivals_too():
    found = everything(0.9, 100.0) | {"confidence of 2": came_to("confidence of 2", 0.95, 20.0)}
    bars = adaptive_bars({AMPLE: compared(found, came_to("ample", 0.9, 40.0), 8)})

    assert not any(bar.holds for bar in bars.values())


def test_what_a_strategy_learns_from_one_problem_it_uses_in_the_next():
    sure = record(["7"] * 8)
    for branch in sure["branches"]:
        branch["mean_logprob"] = -0.01
    found = played.play([sure] * 20, samples=8)[played.SURE]

    assert found.output[0] == 3 * 10
    assert found.output[-1] == 10


# The run through the proxy.

PLAN = Plan({TIGHT: 40.0}, Costs(2.0, 90.0))


@pytest.mark.parametrize("upstream", [Upstream(), Upstream("http://127.0.0.1:1/v1", "m", "enable_thinking")])
def test_settings_are_those_of_a_server(upstream):
    Settings.model_validate(upstream.settings(*PLAN.plugins(40.0)))


def test_what_was_answered_is_counted_in_the_order_of_the_problems(tmp_path):
    asked = [Problem("a", 1, "?", "7"), Problem("b", 2, "?", "8")]
    with Journal(tmp_path / "kept.jsonl") as journal:
        journal.add(f"{TIGHT}/b", [False, "req_2", "9", 90, 30, 0, 1, "think", 0.9, 0.5])
        journal.add(f"{TIGHT}/a", [True, "req_1", "7", 2, 30, 60, 2, "direct", None, 0.1])
        found = outcomes(journal, TIGHT, asked)

        assert [right for right, _ in answers(journal, TIGHT, asked)] == [True, False]
        assert found.right == [1.0, 0.0]
        assert found.tokens == (2 + 60 + 90) / 2
        assert details(journal, TIGHT, asked)["1"] == {"direct": 1.0, "think": 0.0}


def test_parts_that_there_are_not_are_refused(capsys):
    with pytest.raises(SystemExit):
        run.parse(["nonsense"])

    assert "no such part" in capsys.readouterr().err
