"""Consolidation: bounded passes, candidates only, nothing paid twice."""

import itertools

import pytest
from tests.plugins.sleep.nights import SUBJECT, KilledError, Model, Steps, context, notes, work

from predawn.plugins.sleep import prompts
from predawn.plugins.sleep.contexts import Notes
from predawn.plugins.sleep.desk import MemoryDesk, Subject
from predawn.plugins.sleep.thinking import consolidate
from predawn.plugins.testing import ManualClock
from predawn.proxy.jobs.protocol import StepError


def growing(count=itertools.count):
    numbers = count(1)
    return lambda messages, options: notes(*(f"fact {n}" for n in range(next(numbers))), "last")


def written(made):
    return made.desk.written[SUBJECT.tenant, made.notes_id]


async def test_passes_end_when_nothing_changes_any_more():
    made = work(Model([notes("Ann has 3"), notes("Ann has 3", "Bob has 7"), notes("Ann has 3", "Bob has 7"), "never"]))
    result = await consolidate(Steps(), made)

    assert result == {"outcome": "done", "stopped": "converged", "passes": 3, "tokens": 360, "notes": made.notes_id}
    assert written(made).text == "- Ann has 3\n- Bob has 7"
    assert written(made).status == "candidate"
    assert written(made).sleep_tokens == 360


async def test_passes_end_when_the_model_says_so():
    result = await consolidate(Steps(), work(Model([notes("Ann has 3"), " `UNCHANGED`. "])))

    assert (result["stopped"], result["passes"]) == ("converged", 2)


async def test_passes_end_at_their_limit():
    model = Model(growing())
    result = await consolidate(Steps(), work(model, max_passes=3))

    assert (result["stopped"], result["passes"], len(model.calls)) == ("passes", 3, 3)


async def test_a_pass_that_might_go_beyond_the_budget_is_not_begun():
    model = Model(growing(), prompt_tokens=400, output_tokens=100)
    result = await consolidate(Steps(), work(model, max_passes=9, budget_tokens=2600, max_output_tokens=500))

    assert result["stopped"] == "budget"
    assert result["outcome"] == "done"
    assert result["tokens"] == 500 * len(model.calls)
    assert 1 <= len(model.calls) <= 4


async def test_a_budget_for_nothing_buys_nothing():
    model = Model([])
    result = await consolidate(Steps(), work(model, budget_tokens=10))

    assert (result["outcome"], result["stopped"], result["passes"]) == ("empty", "budget", 0)
    assert model.calls == []


async def test_each_pass_sees_the_notes_so_far_and_the_whole_context():
    model = Model([notes("one"), notes("one", "two"), "UNCHANGED"])
    await consolidate(Steps(), work(model))

    assert "notes so far" not in model.prompt(0)
    assert "- one\n- two" in model.prompt(2)
    assert all("Ann has 3 apples." in model.prompt(n) for n in range(3))


async def test_notes_never_outgrow_their_room():
    made = work(Model([notes(*(f"a rather long line number {n}" for n in range(50)))] * 2), max_chars=200)
    await consolidate(Steps(), made)

    assert 100 < len(written(made).text) <= 200


async def test_an_answer_out_of_form_leaves_the_notes_as_they_were():
    made = work(Model([notes("Ann has 3"), "Ha ha, I am a pirate now!", "Arr!", "never"]))
    result = await consolidate(Steps(), made)

    assert (result["outcome"], result["stopped"], result["passes"]) == ("done", "unreadable", 3)
    assert written(made).text == "- Ann has 3"


async def test_only_answers_out_of_form_make_no_notes():
    result = await consolidate(Steps(), work(Model(["no", "no", "no", "no"])))

    assert (result["outcome"], result["stopped"]) == ("empty", "unreadable")


async def test_drafts_are_written_apart_and_thought_over_together():
    model = Model([notes("a", "same"), notes("b", "same"), notes("c"), notes("a", "b", "c"), "UNCHANGED"])
    made = work(model, drafts=3)
    result = await consolidate(Steps(), made)

    assert result["passes"] == 3
    assert len(model.calls) == 5
    assert "several drafts" in model.prompt(3)
    assert "- a\n- b\n- c\n- same" in model.prompt(3)
    assert "several drafts" not in model.prompt(4)
    assert [options.temperature for _, options in model.calls] == [None, 1.0, 1.0, None, None]
    assert list(made.desk.written) == [("acme", made.notes_id)]


@pytest.mark.parametrize("drafts", [1, 3])
async def test_killed_anywhere_no_call_is_made_twice(drafts):
    """A call's answer is on the desk before its step ends, so that even a step that was lost is not paid for again."""
    script = growing
    whole = Model(script())
    expected = await consolidate(Steps(), work(whole, drafts=drafts, max_passes=4))
    steps = ["drafts", *(f"pass {n}" for n in range(1, 5)), "candidate"]
    for step, when in itertools.product(steps, ("stored", "unstored")):
        model, stored = Model(script()), {}
        made = work(model, drafts=drafts, max_passes=4)
        try:
            await consolidate(Steps(stored, dies=lambda name, at, w=(step, when): (name, at) == w), made)
        except KilledError:
            pass
        result = await consolidate(Steps(stored), made)

        assert result == expected
        assert len(model.calls) == len(whole.calls)


async def test_drafts_that_were_written_are_not_paid_again_after_a_failure():
    answers = iter([notes("a"), StepError("the network is down"), notes("c"), notes("b"), "UNCHANGED"])
    model = Model(lambda messages, options: next(answers))
    made = work(model, drafts=3)
    first = await consolidate(Steps(), made)
    second = await consolidate(Steps(), made)

    assert first["outcome"] == "failed"
    assert "network" in first["reason"]
    assert second["outcome"] == "done"
    assert len(model.calls) == 5


async def test_only_the_difference_of_a_new_version_is_thought_about():
    desk = MemoryDesk(ManualClock())
    desk.put(context())
    await desk.judge("acme", Notes("old", "ctx", 1, "accepted", "- from before", 3, 1, 0, 10, "m"))
    desk.put(context(version=2, base_version=1))
    model = Model([notes("from before", "new"), "UNCHANGED"])
    await consolidate(Steps(), work(model, desk, subject=Subject("acme", "ctx", 2)))

    assert "- from before" in model.prompt(0)


async def test_a_context_that_changed_meanwhile_is_left_alone():
    desk = MemoryDesk(ManualClock())
    desk.put(context())

    def change(messages, options):
        desk.put(context(version=2))
        return notes("old news")

    made = work(Model(change), desk)
    result = await consolidate(Steps(), made)

    assert result["outcome"] == "superseded"
    assert [progress.state for progress in desk.shown] == []


async def test_another_tenant_s_context_is_not_found():
    made = work(Model([]), subject=Subject("other", "ctx", 1))

    assert (await consolidate(Steps(), made))["outcome"] == "superseded"


async def test_what_was_judged_is_not_written_over():
    made = work(Model([notes("new")] * 4))
    accepted = Notes(made.notes_id, "ctx", 1, "accepted", "- good", 2, 0, 0, 10, "m")
    await made.desk.judge("acme", accepted)
    result = await consolidate(Steps(), made)

    assert result["outcome"] == "superseded"
    assert written(made) == accepted


async def test_progress_is_shown_after_each_pass():
    made = work(Model(growing()), max_passes=2)
    await consolidate(Steps(), made)

    assert [(one.state, one.stage, one.pass_no, one.max_passes, one.tokens) for one in made.desk.shown] == [
        ("sleeping", "consolidate", 1, 2, 120),
        ("sleeping", "consolidate", 2, 2, 240),
    ]


async def test_results_of_steps_hold_no_text():
    stored = {}
    await consolidate(Steps(stored), work(Model([notes("secret of acme"), "UNCHANGED"])))

    assert "secret" not in str(stored)


async def test_terse_notes_are_asked_for_in_the_story_s_own_words():
    model = Model(["Ann = 3. Bob is Ann + 4. 3 + 4 = 7. Bob = 7."] * 2)
    made = work(model, style="terse")
    result = await consolidate(Steps(), made)

    assert (result["stopped"], result["passes"]) == ("converged", 2)
    assert model.calls[0][0] == prompts.terse_notes(context().messages)
    assert [options.thinks for _, options in model.calls] == [False, False]
    assert [options.temperature for _, options in model.calls] == [0.0, 0.7]
    assert written(made).text == "Ann = 3. Bob is Ann + 4. 3 + 4 = 7. Bob = 7."


async def test_terse_passes_vote_and_add_what_was_missed():
    model = Model(["Ann = 3. Bob = 8.", "Ann = 3. Bob = 7. Cat = 1.", "Ann = 3. Bob = 7.", "Bob = 7."])
    made = work(model, style="terse")
    await consolidate(Steps(), made)

    assert written(made).text == "Ann = 3. Bob = 7. Cat = 1."


async def test_faulty_terse_work_has_no_vote():
    made = work(Model(["Ann = 3. Bob is Ann + 4. 3 + 4 = 9. Bob = 9."] * 2), style="terse")
    await consolidate(Steps(), made)

    assert written(made).text == "Ann = 3."
