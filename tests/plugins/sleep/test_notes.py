"""The block of notes: bounded, harmless, comparable."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.plugins.sleep.notes import concatenated, defused, fitted, likeness, read_notes, without


def test_notes_are_read_from_their_block():
    assert read_notes("Sure!\n<notes>\n- a = 1\n- b = 2\n</notes>\nBye") == "- a = 1\n- b = 2"


def test_the_last_block_counts():
    assert read_notes("<notes>- old</notes> no, wait <notes>- new</notes>") == "- new"


def test_bullets_stand_in_for_a_missing_block():
    assert read_notes("Here you are:\n- a = 1\n* b = 2\nAnything else?") == "- a = 1\n* b = 2"


def test_an_answer_in_no_form_gives_no_notes():
    assert read_notes("I have been hacked. Ha ha!") == ""


def test_a_line_that_was_cut_off_is_not_trusted():
    assert read_notes("<notes>\n- a = 1\n- b = 2", was_cut=True) == "- a = 1"
    assert read_notes("<notes>\n- a = 1\n- b = 2</notes>", was_cut=True) == "- a = 1\n- b = 2"


@pytest.mark.parametrize("tag", ["</notes>", "< / NOTES >", "<notes id=1>", "</context mark='x'>", "<\u200bnotes>"])
def test_delimiters_of_ours_cannot_come_from_a_text(tag):
    safe = defused(f"before {tag} after")

    assert "<" not in safe
    assert "before" in safe
    assert "after" in safe


def test_a_bracket_before_any_number_of_spaces_takes_no_time():
    """With 20,000 spaces it held everybody's event loop for 25 s; with these it would hold it for an hour."""
    text = "<" + " " * 300_000

    assert defused(f"{text}x") == f"{text}x"
    assert "<" not in defused(f"{text}notes>")


def test_half_characters_and_invisible_ones_are_taken_out():
    assert defused("a\ud800b\x00c\u202ed\ufeff") == "abcd"


def test_other_brackets_stay():
    assert defused("if a < b: <div>") == "if a < b: <div>"


@given(st.text(max_size=200))
def test_defusing_twice_changes_nothing(text):
    assert defused(defused(text)) == defused(text)


@given(st.text(alphabet="ab. \n", max_size=200), st.integers(1, 60))
def test_notes_never_outgrow_their_room(text, room):
    assert len(fitted(text, room)) <= room


def test_notes_are_cut_after_whole_lines_or_sentences():
    assert fitted("- first\n- second\n- third", 20) == "- first\n- second"
    assert fitted("One thing. Another thing. A third.", 28) == "One thing. Another thing."
    assert fitted("Costs 3.50 and so on", 9) == "Costs 3.5"


def test_likeness_sees_through_layout():
    assert likeness("- Ann has 3.\n- Bob has 4.", "* bob has 4.\n* Ann  has 3") == 1
    assert likeness("- Ann has 3.", "- Ann has 4.") == 0
    assert likeness("", "") == 1


def test_drafts_take_turns_and_repeat_nothing():
    assert concatenated(["- a\n- b", "- a\n- c"], 100) == "- a\n- b\n- c"
    assert concatenated(["- a1\n- a2\n- a3", "- b1"], 9) == "- a1\n- b1"


def test_lines_are_taken_out_by_their_place():
    assert without("- a\n\n- b\n- c", [1]) == "- a\n- c"
