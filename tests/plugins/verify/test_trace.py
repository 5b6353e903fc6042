"""A choice's texts, the checks that come of them, and how far they are verified."""

import time
import tracemalloc
from contextlib import suppress
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from tests.plugins.verify.wary import Calls, Forbids, Sums

from predawn.plugins import Verdict
from predawn.plugins.verify.reading import CONTENT, REASONING, Key, Piece
from predawn.plugins.verify.trace import BLOCK, EVERYTHING, Text, Trace
from predawn.proxy.extensions import RegisteredVerifier


def registered(verifier):
    reads = getattr(verifier, "reads", ("content",))
    return RegisteredVerifier(verifier.name, verifier.boundary, verifier.verify, reads)


def trace_of(*verifiers):
    return Trace([registered(verifier) for verifier in verifiers])


def settle(*checks):
    for check in checks:
        check.verdict = Verdict("pass")
        check.group.settled(check.step.index)


def say(trace, text, key=CONTENT):
    return trace.feed(Piece(key, text))


def call(trace, part, arguments, **more):
    return trace.feed(Piece(Key("tool_call", part), arguments, {"index": part, **more}))


def test_each_reader_of_a_step_is_asked():
    trace = trace_of(Forbids(boundary="sentence"), Sums())
    checks = say(trace, "One. Two")

    assert [(check.verifier.name, check.step.text) for check in checks] == [("forbids", "One."), ("sums", "One.")]


def test_a_step_knows_what_stands_before_it():
    trace = trace_of(Sums())
    say(trace, "One. Two. ")
    (last,) = trace.close()

    assert (last.step.before, last.step.text, last.step.start, last.step.index) == ("One. Two.", " ", 9, 2)
    assert last.step.is_last


def test_steps_that_wait_share_one_text():
    trace = trace_of(Sums())
    checks = say(trace, "One. " * 20_000)
    held = {check: most_allocated(lambda check=check: check.step) for check in checks[::1000]}

    assert max(held.values()) < BLOCK
    assert all(check.step.before == ("One. " * 20_000)[: check.step.start] for check in held)
    assert {held_by(check.step)["_said"] for check in held} == {None}


def test_making_a_step_costs_the_same_however_much_was_said_before():
    trace = trace_of(Sums())
    most = 0
    for _ in range(20_000):
        (check,) = say(trace, " It is so.\n")
        if check.cut.index % 500 == 0:
            most = max(most, most_allocated(lambda check=check: check.step))
        else:
            assert check.step.text
        check.cut.forget()

    assert trace.length(CONTENT) > 25 * BLOCK
    assert most < 4 * BLOCK


@given(
    st.lists(st.one_of(st.text("ab", max_size=5), st.integers(0, 3 * BLOCK).map("x".__mul__)), max_size=12),
    st.lists(st.integers(0, 40 * BLOCK), min_size=3, max_size=3),
)
def test_a_text_reads_as_if_it_were_one_string(pieces, places):
    text, whole = Text(), ""
    for piece in pieces:
        text.add(piece)
        whole += piece
        start, end, until = (place % (len(whole) + 1) for place in places)
        assert text.between(start, end) == whole[start:end]
        before = text.until(until)
        text.add("more")
        assert before() == whole[:until]
        text.cut(len(whole))
        assert (before(), text.text, text.length) == (whole[:until], whole, len(whole))


def most_allocated(work):
    """Bytes that were held at once beyond what was held before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def held_by(step):
    """What a step has, without asking it."""
    found = {}
    for name in ("before", "_said"):
        with suppress(AttributeError):
            found[name] = object.__getattribute__(step, name)
    return found


def test_a_step_is_what_it_was_whatever_is_said_later():
    trace = trace_of(Sums())
    _, second = say(trace, "One. Two. ")
    step = second.step
    trace.cut(CONTENT, 3)
    say(trace, " And so on.")
    again = replace(step, forked="so")

    assert (again.before, again.text, again.forked) == ("One.", " Two.", "so")
    assert (step.before, step.forked) == ("One.", None)


def test_a_call_that_waits_holds_no_copy_of_its_arguments():
    trace = trace_of(Calls())
    for number in range(50):
        call(trace, number % 2, "x" * 100, id="c", function={"name": "f" if number < 2 else ""})
    checks = trace.close()

    assert "arguments" not in checks[0].cut.call["function"]
    assert checks[0].step.tool_call["function"] == {"name": "f", "arguments": "x" * 2500}


def test_many_tools_may_be_called_in_little_time():
    trace = trace_of(Calls())
    began = time.process_time()
    for number in range(20_000):
        call(trace, number, "{}", function={"name": "add"})

    assert time.process_time() - began < 2.0


def test_a_text_is_verified_up_to_the_first_open_check():
    trace = trace_of(Sums())
    first, second = say(trace, "One. Two. Three")
    settle(second)

    assert trace.verified(CONTENT) == 0
    settle(first)
    assert trace.verified(CONTENT) == len("One. Two.")
    settle(*trace.close())
    assert trace.is_verified


def test_the_slowest_boundary_counts():
    trace = trace_of(Sums(), Forbids(boundary="line"))
    settle(*say(trace, "One. Two. "))

    assert trace.verified(CONTENT) == 0


def test_thoughts_are_over_when_the_answer_begins():
    trace = trace_of(Sums())
    say(trace, "Hm", REASONING)
    (last,) = say(trace, "Yes")

    assert (last.step.where, last.step.text, last.step.is_last) == ("reasoning", "Hm", True)
    assert not trace.thoughts_are_verified


def test_a_tool_call_is_judged_as_a_whole():
    trace = trace_of(Calls())
    call(trace, 0, "", id="c", type="function", function={"name": "add"})
    call(trace, 0, '{"a":')

    assert trace.verified(Key("tool_call", 0)) == -1
    assert call(trace, 0, "1}") == []
    (first,) = call(trace, 1, "", function={"name": "add"})
    assert first.step.tool_call == {
        "id": "c",
        "type": "function",
        "function": {"name": "add", "arguments": '{"a":1}'},
    }
    settle(first)
    assert trace.verified(Key("tool_call", 0)) == EVERYTHING


def test_a_text_nobody_reads_need_not_wait():
    trace = trace_of(Calls())
    say(trace, "anything")

    assert trace.verified(CONTENT) == EVERYTHING
    assert trace.close() == []


def test_an_answer_that_says_nothing_has_a_last_step_unless_it_calls_a_tool():
    assert [check.step.is_last for check in trace_of(Sums()).close()] == [True]
    called = trace_of(Sums())
    call(called, 0, "{}")
    assert called.close() == []


def test_a_cut_forgets_what_follows_and_goes_on_from_there():
    trace = trace_of(Sums())
    say(trace, "Hm. Yes. ", REASONING)
    say(trace, "Seven")
    trace.cut(REASONING, 3)
    (check,) = say(trace, " No. ", REASONING)

    assert trace.text(CONTENT) == ""
    assert (check.step.text, check.step.index, check.step.before) == (" No.", 1, "Hm.")


@given(st.lists(st.sampled_from(["a", "b. ", "\n", "7 = 7.", " "]), max_size=30), st.integers(0, 60))
def test_after_a_cut_the_steps_are_those_of_the_text_that_is_left(words, at):
    text, more = "".join(words), " x. Y. "
    at = min(at, len(text))
    cut, straight = trace_of(Sums()), trace_of(Sums())
    for piece in words:
        say(cut, piece)
    cut.cut(CONTENT, at)
    say(straight, text[:at])

    after = [[check.step.end for check in say(trace, more) if check.step.end > at] for trace in (cut, straight)]
    assert after[0] == after[1]
