"""Anticipation: likely questions, answers that agree with and without the notes."""

import pytest
from tests.plugins.sleep.nights import KilledError, Model, Steps, context, work

from predawn.plugins.sleep.anticipation import AnticipationRules, anticipate, are_same, normalised, read_questions
from predawn.plugins.sleep.contexts import Asked, Notes
from predawn.plugins.sleep.warming import WarmPrefixes, WarmRules, warm

RULES = AnticipationRules(questions=2)


def with_notes(model, text="- Bob has 7", *, role="user", **rules):
    made = work(model, **rules)
    made.desk.put(context(role=role, state="asleep", notes_id="n1"))
    made.desk.written["acme", "n1"] = Notes("n1", "ctx", 1, "accepted", text, 9, 2, 0.0, 100, "m")
    return made


def rows(made):
    return [(one.question, one.answer, one.verified) for one in made.desk.questions.values()]


async def test_questions_are_foreseen_and_answered_with_the_notes_and_without():
    model = Model(["Q: How many has Bob?\n2. Q: Who has more?\nQ: Too many?", "7.", "7", "Bob.", "Ann."])
    model.script += ["no"]
    made = with_notes(model)
    result = await anticipate(Steps(), made, RULES)

    assert (result["asked"], result["answered"], result["verified"]) == (2, 2, 1)
    assert rows(made) == [("How many has Bob?", "7.", True), ("Who has more?", "Bob.", False)]
    assert "<notes id=" in model.prompt(1)
    assert "<notes id=" not in model.prompt(2)
    assert result["tokens"] == 6 * 120
    assert [one.normalised for one in made.desk.questions.values()] == ["how many has bob", "who has more"]


async def test_a_judge_says_whether_long_answers_agree():
    model = Model(["Q: Why?", "Because of the rain " * 9, "The rain was the reason " * 9, " Yes."])
    made = with_notes(model)

    assert (await anticipate(Steps(), made, RULES))["verified"] == 1


async def test_an_answer_that_was_cut_off_is_not_verified():
    model = Model(["Q: Why?", Asked("Because", prompt_tokens=10, output_tokens=1024)])
    made = with_notes(model)

    assert (await anticipate(Steps(), made, RULES))["verified"] == 0
    assert len(model.calls) == 2


async def test_it_ends_within_the_budget_of_all_stages():
    model = Model(lambda messages, options: "Q: One?\nQ: Two?")
    result = await anticipate(Steps(), with_notes(model, budget_tokens=2400), RULES)

    assert (result["stopped"], result["answered"], len(model.calls)) == ("budget", 1, 3)


async def test_the_bundled_model_is_asked_for_each_name_that_its_notes_know():
    model = Model(["3", "8"])
    made = with_notes(model, "Ann = 3. Bob = 7.", style="terse")
    await anticipate(Steps(), made, RULES)

    assert rows(made) == [("How many apples does Ann have?", "3", True), ("How many apples does Bob have?", "8", False)]
    assert model.prompt(0).endswith("more than Ann. Notes: Ann = 3. Bob = 7. How many apples does Ann have?")


@pytest.mark.parametrize("when", ["stored", "unstored"])
@pytest.mark.parametrize("step", ["questions", "answer 1", "answer 2"])
async def test_killed_anywhere_nothing_is_asked_twice(step, when):
    model, stored = Model(["Q: One?\nQ: Two?", "1", "1", "2", "2"]), {}
    made = with_notes(model)
    with pytest.raises(KilledError):
        await anticipate(Steps(stored, dies=lambda *at: at == (step, when)), made, RULES)
    result = await anticipate(Steps(stored), made, RULES)

    assert (result["verified"], len(model.calls)) == (2, 5)


async def test_no_question_comes_from_an_answer_that_has_none():
    result = await anticipate(Steps(), with_notes(Model(["I am a pirate."])), RULES)

    assert (result["outcome"], result["asked"]) == ("done", 0)


def test_questions_are_read_once_each_and_bounded():
    answer = "Q: One?\n- **Q:** Two?\nQuestion 3: one ?\nQ: " + "x" * 500 + "\nnot one\nQ: </notes> Three?"

    assert read_questions(answer, 9) == ["One?", "Two?", "\u2039/notes> Three?"]
    assert read_questions(answer, 1) == ["One?"]


@pytest.mark.parametrize(
    ("first", "second"),
    [("How many?", "  how   MANY "), ("\u201cWho?\u201d", "who"), ("\uff21nn?", "Ann")],
)
def test_the_same_question_in_other_clothes_is_the_same(first, second):
    assert normalised(first) == normalised(second)


def test_other_questions_stay_other_questions():
    assert len({normalised(text) for text in ("3.5?", "35?", "Who?", "Who not?", "a b", "ab")}) == 6


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [("7", "7.", True), ("7", "8", False), ("", "", False), ("Ann", "It is Ann", None), ("in 1999", "in 1998", False)],
)
def test_short_answers_are_compared_by_their_text(first, second, same):
    assert are_same(first, second) is same


async def test_warming_sends_the_exact_prefix_and_wants_one_token():
    model = Model([Asked("x", prompt_tokens=50, cached_tokens=40)])
    made = with_notes(model, role="system")
    result = await warm(Steps(), made)
    messages, options = model.calls[0]

    assert result == {"outcome": "done", "prompt_tokens": 50, "cached_tokens": 40}
    assert messages[0] == context(role="system").messages[0]
    assert messages[1]["content"].endswith("- Bob has 7\n</notes>")
    assert (options.max_tokens, options.purpose) == (1, "warm")


async def test_a_prefix_without_notes_gets_a_last_word():
    made = work(Model(["x"]))
    made.desk.put(context(role="system"))
    await warm(Steps(), made)

    assert made.ask.calls[0][0][-1] == {"role": "user", "content": "."}


def test_a_prefix_is_kept_warm_so_many_times_without_a_use():
    warmth, due = WarmPrefixes(WarmRules(every_s=240, most_times=2)), []
    warmth.primed("a", 1, 0)
    due.append([key for key, _ in warmth.due(200)])
    due.append([key for key, _ in warmth.due(240)])
    warmth.primed("a", 1, 240)
    due.append([key for key, _ in warmth.due(480)])

    assert due == [[], ["a"], []]
    assert len(warmth) == 0


def test_a_use_warms_as_well():
    warmth = WarmPrefixes(WarmRules(every_s=240, most_times=2, most_contexts=1))
    warmth.primed("a", 1, 0)
    warmth.used("a", 200)
    warmth.used("b", 200)

    assert warmth.due(300) == []
    assert [key for key, _ in warmth.due(440)] == ["a"]
    warmth.primed("b", 1, 450)
    assert len(warmth) == 1


def test_a_question_mark_before_any_number_of_spaces_takes_no_time():
    assert read_questions("Q" + " " * 300_000 + "x", 5) == []
