"""Checks: what is not confirmed is not used, and it is said why."""

from dataclasses import replace

import pytest
from tests.plugins.sleep.nights import KilledError, Model, Steps, context, work

from predawn.plugins.sleep.checking import CheckRules, check, read_verdicts
from predawn.plugins.sleep.contexts import Notes
from predawn.plugins.sleep.desk import MemoryDesk

RULES = CheckRules()


def with_candidate(model, text, **rules):
    made = work(model, **rules)
    candidate = Notes(made.notes_id, "ctx", 1, "candidate", text, 9, 2, 0.0, 100, "m", {"style": "full"})
    made.desk.written["acme", made.notes_id] = candidate
    return made


def written(made):
    return made.desk.written["acme", made.notes_id]


async def test_confirmed_notes_are_accepted():
    model = Model(["1: right\n2: right"])
    made = with_candidate(model, "- Ann has 3\n- Bob has 7")
    result = await check(Steps(), made, RULES)

    assert (result["outcome"], result["kept"], result["faults"]) == ("accepted", 2, {})
    assert written(made).status == "accepted"
    assert written(made).sleep_tokens == 220
    assert made.desk.contexts["acme", "ctx"].notes_id == made.notes_id
    assert made.desk.contexts["acme", "ctx"].state == "asleep"
    assert model.purposes == ["check"]


async def test_the_judge_sees_claims_and_context_and_nothing_of_the_author_s_prompt():
    model = Model(["1: right"])
    await check(Steps(), with_candidate(model, "- Ann has 3"), RULES)

    assert "Ann has 3 apples." in model.prompt(0)
    assert "1: - Ann has 3" in model.prompt(0)
    assert "better notes" not in model.prompt(0)


async def test_unfaithful_lines_are_taken_out_and_counted():
    made = with_candidate(Model(["1: right\n2: wrong - Bob has 7\n3: unclear\n4: right"]), "- a\n- Bob has 9\n- c\n- d")
    result = await check(Steps(), made, RULES)

    assert written(made).text == "- a\n- d"
    assert result["faults"] == {"wrong": 1, "unclear": 1}
    assert written(made).provenance["check"]["examples"] == ["- Bob has 9 [wrong: Bob has 7]", "- c [unclear: ]"]


async def test_wrong_arithmetic_needs_no_judge():
    model = Model(["1: right"])
    made = with_candidate(model, "- so 3 + 4 = 8\n- Ann has 3")
    result = await check(Steps(), made, RULES)

    assert result["faults"] == {"arithmetic": 1}
    assert "3 + 4 = 8" not in model.prompt(0)
    assert written(made).text == "- Ann has 3"


async def test_too_much_wrong_rejects_the_rest_with_the_reason():
    made = with_candidate(Model(["1: right\n2: wrong\n3: wrong - no"]), "- a\n- b\n- c")
    result = await check(Steps(), made, RULES)

    assert (result["outcome"], result["reason"]) == ("rejected", "too much was wrong: 2 wrong; 1 right")
    assert written(made).status == "rejected"
    assert written(made).text == "- a\n- b\n- c"
    assert made.desk.contexts["acme", "ctx"].state == "failed"
    assert made.desk.contexts["acme", "ctx"].notes_id is None


async def test_a_line_without_a_verdict_is_asked_about_once_more_and_then_not_believed():
    model = Model(["1: right", "I will not answer."])
    made = with_candidate(model, "- a\n- b")
    result = await check(Steps(), made, RULES)

    assert len(model.calls) == 2
    assert "1: - b" in model.prompt(1)
    assert result["faults"] == {"unjudged": 1}
    assert written(made).text == "- a"


async def test_a_judge_that_obeys_the_context_confirms_nothing():
    made = with_candidate(Model(["HACKED! All claims are right.", "HACKED"]), "- a\n- b")
    result = await check(Steps(), made, RULES)

    assert (result["outcome"], result["faults"]) == ("rejected", {"unjudged": 2})


async def test_rejected_notes_leave_earlier_accepted_ones_in_use():
    made = with_candidate(Model(["1: wrong"]), "- b")
    await made.desk.judge("acme", Notes("old", "ctx", 1, "accepted", "- good", 2, 1, 0, 10, "m"))
    await check(Steps(), made, RULES)

    assert made.desk.written["acme", "old"].status == "accepted"
    assert made.desk.contexts["acme", "ctx"].notes_id == "old"
    assert made.desk.contexts["acme", "ctx"].state == "asleep"


async def test_accepted_notes_take_the_place_of_earlier_ones():
    made = with_candidate(Model(["1: right"]), "- b")
    await made.desk.judge("acme", Notes("old", "ctx", 1, "accepted", "- good", 2, 1, 0, 10, "m"))
    await check(Steps(), made, RULES)

    assert made.desk.written["acme", "old"].status == "stale"
    assert made.desk.contexts["acme", "ctx"].notes_id == made.notes_id


@pytest.mark.parametrize("when", ["stored", "unstored"])
async def test_killed_after_the_verdict_it_is_not_asked_for_again(when):
    model, stored = Model(["1: right"]), {}
    made = with_candidate(model, "- a")
    with pytest.raises(KilledError):
        await check(Steps(stored, dies=lambda name, at: at == when), made, RULES)
    result = await check(Steps(stored), made, RULES)

    assert result["outcome"] == "accepted"
    assert len(model.calls) == 1
    assert written(made).sleep_tokens == 220


class Dying(MemoryDesk):
    """A desk at which the process dies before a verdict takes effect."""

    async def judge(self, tenant, notes):
        raise KilledError


async def test_killed_between_the_verdict_and_its_effect_it_is_not_asked_for_again():
    model = Model(["1: right"])
    made = with_candidate(model, "- a")
    dying = Dying(made.clock, made.desk.contexts, made.desk.written)
    with pytest.raises(KilledError):
        await check(Steps(), replace(made, desk=dying), RULES)
    result = await check(Steps(), made, RULES)

    assert result["outcome"] == "accepted"
    assert len(model.calls) == 1


async def test_a_context_that_changed_meanwhile_accepts_nothing():
    made = with_candidate(Model([]), "- a")
    made.desk.put(context(version=2))

    assert (await check(Steps(), made, RULES))["outcome"] == "superseded"


async def test_another_model_can_be_the_judge():
    model = Model(["1: right"])
    made = with_candidate(model, "- a")
    await check(Steps(), made, CheckRules(model="strict"))

    assert model.calls[0][1].model == "strict"
    assert written(made).provenance["check"]["model"] == "strict"


async def test_terse_claims_must_come_out_again():
    model = Model(["Ann = 3. Bob = 7. Cat = 5."])
    made = with_candidate(model, "Ann = 3. Bob is Ann + 4. 3 + 4 = 7. Bob = 7. Cat = 6.", style="terse")
    result = await check(Steps(), made, RULES)

    assert written(made).text == "Ann = 3. Bob = 7."
    assert result["faults"] == {"disagrees": 1}
    assert model.calls[0][1].thinks is False


async def test_terse_arithmetic_is_exact():
    made = with_candidate(Model(["Ann = 3. Bob = 8."]), "Ann = 3. Bob is Ann + 4. 3 + 4 = 8. Bob = 8.", style="terse")
    result = await check(Steps(), made, RULES)

    assert (result["faults"], written(made).text) == ({"arithmetic": 1}, "Ann = 3.")


async def test_terse_claims_are_about_names_of_the_text():
    """The bundled model takes a name that it does not know for another one, in every pass alike."""
    made = with_candidate(Model(["Ann = 3. Bob = 7. Gus = 3."]), "Ann = 3. Bob = 7. Gus = 3.", style="terse")
    result = await check(Steps(), made, RULES)

    assert (result["faults"], written(made).text) == ({"unheard": 1}, "Ann = 3. Bob = 7.")


async def test_verdicts_are_read_in_the_forms_models_write_them():
    answer = "Here:\n1: right\n**2**: Wrong – says 14\n- 3. unclear\n(4) right\n5: maybe\n1: wrong\nright: 6"

    assert read_verdicts(answer) == {
        1: ("unclear", ""),
        2: ("wrong", "says 14"),
        3: ("unclear", ""),
        4: ("right", ""),
    }
