"""What makes a context a candidate."""

import pytest

from predawn.plugins.sleep.triggers import (
    Candidate,
    Candidates,
    Conversations,
    Key,
    Schedule,
    nears_window,
)

NOON = 1_700_049_600.0  # 2023-11-15 12:00 UTC


def candidate(name, trigger="seen", at=0.0, version=1):
    return Candidate(Key("t", name), version, trigger, at)


def test_the_most_urgent_goes_first_then_the_oldest():
    waiting = Candidates()
    for one in (
        candidate("a", "quiet", 1),
        candidate("c", "seen", 2),
        candidate("b", "seen", 3),
        candidate("d", "asked", 4),
    ):
        waiting.add(one)

    assert [one.key.context_id for one in waiting.in_order()] == ["d", "c", "b", "a"]
    assert waiting.oldest_s(10) == 9


def test_a_context_waits_once_with_its_most_urgent_trigger():
    waiting = Candidates()
    for trigger in ("quiet", "tool_calls", "seen"):
        waiting.add(candidate("a", trigger))

    assert [one.trigger for one in waiting.in_order()] == ["tool_calls"]


def test_a_newer_version_takes_the_place_of_an_older_one():
    waiting = Candidates()
    waiting.add(candidate("a", "asked", version=1))
    waiting.add(candidate("a", "changed", version=2))
    waiting.add(candidate("a", "seen", version=1))

    assert [(one.version, one.trigger) for one in waiting.in_order()] == [(2, "asked")]


def test_what_is_urgent_about_an_older_version_does_not_take_the_place_of_a_newer_one():
    waiting = Candidates()
    waiting.add(candidate("a", "changed", version=2))
    waiting.add(candidate("a", "tool_calls", version=1))

    assert [(one.version, one.trigger) for one in waiting.in_order()] == [(2, "changed")]


def test_the_least_urgent_is_let_go_when_there_is_no_room():
    waiting = Candidates(2)
    for one in (candidate("a", "schedule", 1), candidate("b", "asked", 2), candidate("c", "seen", 3)):
        waiting.add(one)

    assert [one.key.context_id for one in waiting.in_order()] == ["b", "c"]


def test_a_conversation_goes_quiet_once():
    used = Conversations(120)
    used.used(Key("t", "a"), 1, 0)
    used.used(Key("t", "b"), 1, 50)
    used.used(Key("t", "a"), 2, 60)

    assert used.gone_quiet(100) == []
    assert used.gone_quiet(175) == [(Key("t", "b"), 1)]
    assert used.gone_quiet(1000) == [(Key("t", "a"), 2)]
    assert used.gone_quiet(2000) == []


def test_conversations_are_bounded():
    used = Conversations(120, most=2)
    for name in "abc":
        used.used(Key("t", name), 1, 0)

    assert [key.context_id for key, _ in used.gone_quiet(1000)] == ["b", "c"]


def test_a_schedule_is_due_once_at_each_time():
    schedule = Schedule(["12:30", "03:00"])
    due = [schedule.is_due(NOON + minutes * 60) for minutes in (0, 29, 31, 60, 15 * 60 + 1)]

    assert due == [False, False, True, False, True]


def test_a_schedule_makes_up_for_a_time_that_passed_in_between():
    schedule = Schedule(["03:00"])
    schedule.is_due(NOON)

    assert schedule.is_due(NOON + 10 * 86_400)
    assert not Schedule([]).is_due(NOON)


@pytest.mark.parametrize("text", ["24:00", "3", "3:60", "soon"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="no time of the day"):
        Schedule([text])


def test_a_window_is_near_its_end_at_four_fifths():
    assert nears_window(80, 100)
    assert not nears_window(79, 100)
    assert not nears_window(10**9, None)
