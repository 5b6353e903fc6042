"""The parts of the benchmark of verification that decide by arithmetic alone."""

import json
from random import Random

import pytest
from tests.benchmarks.verify import accuracy, run, truth
from tests.benchmarks.verify.accuracy import BOTH, INTERVENE, NOTHING, OBSERVE, RETRY, VOTED, Graded, Plan
from tests.benchmarks.verify.asking import Answer, Heard, booked
from tests.benchmarks.verify.hostile import alone

from predawn.kernels.tiny import evaluate, language
from predawn.kernels.tiny.world import Story


def thoughts_of(story: Story) -> str:
    chain = story.chain(story.asked)
    steps = [language.step(chain[0])]
    steps += [language.step(fact, parent.value) for parent, fact in zip(chain, chain[1:], strict=False)]
    return " ".join([language.plan(chain), *steps])


STORIES = evaluate.stories(40, "test")

# Truth.


def test_thoughts_that_follow_the_story_are_right() -> None:
    for story in STORIES:
        assert truth.all_right(story, thoughts_of(story))
        assert truth.sums_right(thoughts_of(story))


def test_one_other_number_anywhere_makes_thoughts_wrong() -> None:
    draw = Random(1)
    for story in STORIES:
        words = thoughts_of(story).split(" ")
        place = draw.choice([place for place, word in enumerate(words) if word.rstrip(".").isdigit()])
        number = int(words[place].rstrip("."))
        words[place] = words[place].replace(str(number), str(number + 1))

        assert not truth.all_right(story, " ".join(words))


def test_a_sum_is_wrong_whatever_it_counts_and_a_wrong_person_is_not_a_wrong_sum() -> None:
    assert not truth.sums_right("Bob is Ann + 4. 3 + 4 = 8. Bob = 8.")
    assert not truth.sums_right("7 / 2 = 3.")
    assert truth.sums_right("Cat is Ann + 4. 3 + 4 = 7. Cat = 7.")


def test_no_thoughts_and_other_words_are_not_right() -> None:
    assert not truth.all_right(STORIES[0], "")
    assert not truth.all_right(STORIES[0], thoughts_of(STORIES[0]) + " That is all.")


# Answers.


def test_an_answer_survives_the_journal() -> None:
    kept = Answer("7", "3 + 4 = 7.", "stop", 0.1, 0.2, 2, 30, 60, [["reasoning", 3, "rewrite"]])

    assert Answer.of(json.loads(json.dumps(kept.as_json()))) == kept


def test_a_stream_and_a_whole_answer_are_heard_alike() -> None:
    costs = {"calls": 1, "output_tokens": 9, "prompt_tokens": 8, "flags": []}
    streamed, whole = Heard(), Heard()
    for delta in (
        {"role": "assistant"},
        {"reasoning_content": "3 + 4 "},
        {"reasoning_content": "= 7."},
        {"content": "7"},
    ):
        streamed.take({"choices": [{"index": 0, "delta": delta}]}, "delta")
    streamed.take({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, "delta")
    message = {"content": "7", "reasoning_content": "3 + 4 = 7."}
    whole.take({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}, "message")
    one, other = streamed.answer(costs), whole.answer(costs)

    assert (
        (one.text, one.thoughts, one.finish)
        == (other.text, other.thoughts, other.finish)
        == ("7", "3 + 4 = 7.", "stop")
    )


def test_an_error_in_a_stream_ends_the_run() -> None:
    with pytest.raises(RuntimeError, match="went away"):
        Heard().take({"error": {"message": "it went away"}}, "delta")


def test_all_that_was_generated_counts_and_so_do_the_prompts_of_what_was_discarded() -> None:
    ledger = {"prompt": 60, "discarded_prompt": 90, "verify_prompt": 5, "output": 40, "discarded": 12, "verify": 3}
    violation = {"channel": "reasoning", "at": 17, "action": "rewrite"}
    decisions = [
        {"by": "sampling", "what": "answered", "detail": {}},
        {"by": "verify", "what": "violation", "detail": violation},
        {"by": "verify", "what": "violation", "detail": {"mode": "observe"}},
    ]
    found = booked({"ledger": ledger, "calls": [{}, {}], "decisions": decisions})

    assert found == {"calls": 2, "output_tokens": 55, "prompt_tokens": 155, "flags": [["reasoning", 17, "rewrite"]]}


# Figures.


def answered(
    story: Story, *, right: bool, output: int = 50, prompt: int = 50, slip: bool = False, flag: bool = False
) -> Graded:
    thoughts = thoughts_of(story) + (" 1 + 1 = 3." if slip else "")
    flags = [["reasoning", 0, "flag"]] if flag else []
    text = str(story.answer if right else story.answer + 1)
    return Graded(story, Answer(text, thoughts, "stop", 0.1, 0.2, 1, output, prompt, flags), right)


def all_ways(**changed: list[Graded]) -> dict[str, list[Graded]]:
    plain = [answered(story, right=number > 0, slip=number == 0) for number, story in enumerate(STORIES[:10])]
    ways = {way.name: plain for way in accuracy.WAYS}
    return {**ways, **changed}


def test_the_bars_hold_where_corrections_gain_and_cost_little() -> None:
    mended = [answered(story, right=True, output=55, prompt=60) for story in STORIES[:10]]
    retried = [answered(story, right=True, output=70, prompt=60) for story in STORIES[:10]]
    found = accuracy.figures(Plan(10), all_ways(**{INTERVENE.name: mended, RETRY.name: retried}))
    bars = accuracy.bars(found)

    assert [bar.holds for bar in bars.values()] == [True] * len(bars)
    assert bars["intervene over nothing"].value == pytest.approx(10)
    assert bars["all tokens with intervene, prompts too, of those with nothing"].value == pytest.approx(1.15)


def test_a_correct_trace_that_was_flagged_and_a_slip_that_was_not_are_told_apart() -> None:
    story = STORIES[0]
    observed = [
        answered(story, right=True),
        answered(story, right=True, flag=True),
        answered(story, right=False, slip=True),
        answered(story, right=False, slip=True, flag=True),
        answered(story, right=False),
    ]
    found = accuracy.interventions(observed)

    assert (found["false_share"], found["caught_share"]) == (0.5, 0.5)
    assert [shown["kind"] for shown in found["examples"]] == ["false", "missed"]


def test_wrong_answers_are_sorted_by_what_is_wrong_in_their_thoughts() -> None:
    story = STORIES[0]
    stopped = Graded(story, Answer("", "", "content_filter", 0.1, 0.1), right=False)
    found = accuracy.left_wrong(
        [stopped, answered(story, right=False, slip=True), answered(story, right=False), answered(story, right=True)]
    )
    found.pop("examples")

    assert list(found.values()) == [1, 1, 0, 1]


def test_thoughts_of_other_models_have_no_false_share() -> None:
    found = accuracy.figures(Plan(10, base_url="http://there/v1"), all_ways())
    bar = accuracy.bars(found)["interventions in correct traces"]

    assert bar.value is None
    assert bar.reason


# Requests.


def test_a_story_has_the_same_seed_in_all_ways_and_another_one_than_every_sample_of_others() -> None:
    plan = Plan(4)
    bodies = {way.name: plan.body(3, STORIES[3], way) for way in accuracy.WAYS}

    assert {body["seed"] for body in bodies.values()} == {3 * accuracy.SEEDS_APART}
    assert accuracy.SAMPLES * (1 + accuracy.CORRECTIONS) < accuracy.SEEDS_APART
    assert all(body["messages"] == bodies[NOTHING.name]["messages"] for body in bodies.values())


def test_what_is_asked_of_the_server_is_what_the_ways_are_called() -> None:
    assert "sampling" not in {**NOTHING.control, **OBSERVE.control, **INTERVENE.control}
    assert VOTED.control["sampling"] == BOTH.control["sampling"]
    assert (VOTED.control["verify"], BOTH.control["verify"]) == (False, INTERVENE.control["verify"])
    assert not RETRY.stream


def test_stories_have_all_depths_evenly() -> None:
    depths = [story.depth for _, _, story in accuracy.named(Plan(400))]

    assert {depth: depths.count(depth) for depth in range(1, 9)} == dict.fromkeys(range(1, 9), 50)


def test_a_run_that_is_not_the_whole_one_leaves_the_evidence_alone() -> None:
    assert run._out(run.parse([])).name == "eval-verify.json"
    for words in (["--limit", "20"], ["--parts", "planted"]):
        assert run._out(run.parse(words)).parent == run.KEPT


def test_other_stories_other_models_and_other_code_are_not_mixed_with_kept_answers() -> None:
    plans = [run._plan(run.parse(words)) for words in ([], ["--seed", "2"], ["--limit", "9"], ["--stories", "9"])]
    folders = [run._folder(plan) for plan in plans]

    assert len(set(folders)) == 3
    assert folders[2] == folders[3]


def test_hostile_texts_run_alone_wherever_modules_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    monkeypatch.delenv("PYTHONPATH", raising=False)

    assert b"--times" in alone("--help")
