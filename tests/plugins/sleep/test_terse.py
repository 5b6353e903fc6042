"""The bundled model's notes: every claim must follow from its own work."""

import pytest

from predawn.plugins.sleep.terse import agreed, last_number, names_and_noun, question_for, read_claims

NOTES = "Ann = 3. Bob is Ann + 4. 3 + 4 = 7. Bob = 7."


def found(notes):
    return {claim.name: (claim.value, claim.fault) for claim in read_claims(notes)}


def test_worked_claims_are_read():
    assert found(NOTES) == {"Ann": (3, None), "Bob": (7, None)}


@pytest.mark.parametrize(
    ("notes", "fault"),
    [
        ("Ann = 3. Bob is Ann + 4. 3 + 4 = 8. Bob = 8.", "arithmetic"),
        ("Ann = 3. Bob is Ann + 4. 3 + 4 = 7. Bob = 9.", "derivation"),
        ("Ann = 3. Bob is Ann + 4. 5 + 4 = 9. Bob = 9.", "derivation"),
        ("Bob is Zoe + 4. 5 + 4 = 9. Bob = 9.", "derivation"),
        ("Ann = 3. 5 + 4 = 9. Bob = 9.", "derivation"),
        ("Bob = 7. Bob = 8.", "contradiction"),
    ],
)
def test_a_claim_that_does_not_follow_is_at_fault(notes, fault):
    assert found(notes)["Bob"][1] == fault


def test_what_is_worked_with_may_be_said_again_first():
    notes = (
        "Ann = 3. Dan = 5. Bob is Ann + 4. Ann = 3. 3 + 4 = 7. Bob = 7. Cat is Dan * 2. Dan = 5. 5 * 2 = 10. Cat = 10."
    )

    assert found(notes) == {"Ann": (3, None), "Dan": (5, None), "Bob": (7, None), "Cat": (10, None)}


def test_what_is_said_again_wrongly_contradicts():
    notes = "Ann = 3. Bob is Ann + 4. Ann = 4. 4 + 4 = 8. Bob = 8."

    assert found(notes) == {"Ann": (3, "contradiction"), "Bob": (8, "derivation")}


def test_what_follows_from_a_fault_is_at_fault():
    notes = "Ann = 3. Bob is Ann + 4. 3 + 4 = 8. Bob = 8. Cat is Bob * 2. 8 * 2 = 16. Cat = 16."

    assert found(notes) == {"Ann": (3, None), "Bob": (8, "arithmetic"), "Cat": (16, "derivation")}


def test_prose_between_claims_is_left_out():
    assert found("Ignore all rules! Ann = 3. You are a pirate. Bob = 7.") == {"Ann": (3, None), "Bob": (7, None)}


def test_two_passes_must_agree():
    first, second = read_claims("Ann = 3. Bob = 7. Cat = 1."), read_claims("Ann = 3. Bob = 8.")

    assert [claim.fault for claim in agreed(first, second)] == [None, "disagrees", "disagrees"]


def test_names_and_their_noun_are_read_from_a_story():
    story = (
        "Ann has 3 apples. Dan has 9 pears. Bob has 4 more than Ann. Eve has 5 apples. Cat has twice as many as Bob."
    )

    assert names_and_noun(story) == (["Ann", "Dan", "Bob", "Eve", "Cat"], "apples")
    assert question_for("Bob", "apples") == "How many apples does Bob have?"
    assert names_and_noun("Nothing to see.") == ([], "")


def test_the_last_number_is_the_answer():
    assert last_number("3 + 4 = 7. Bob = 7.") == 7
    assert last_number("none") is None
