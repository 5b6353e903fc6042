"""The machine without waiting: whatever comes in whatever order, the client gets only what it should."""

import gc
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.plugins.verify.test_trace import registered
from tests.plugins.verify.wary import Calls, Forbids, Sums

from predawn.plugins import Chunk, Verdict
from predawn.plugins.verify.modes.flow import Ask, Continue, Drop, End, Flow, Kept, Noted, Send
from predawn.plugins.verify.modes.rules import Rule, Rules
from predawn.plugins.verify.reading import parts_of
from predawn.proxy.wire.fold import fold

MODES = ("optimistic", "gate", "intervene")
SECRET = st.lists(st.sampled_from(["a ", "secret", "b. ", "\n", "c", "sec", "ret", " "]), max_size=20)


class Play:
    """A flow with a client on one side and a verifier's patience on the other."""

    def __init__(self, mode, *verifiers, early=True, **rules):
        self.by_name = {verifier.name: verifier for verifier in verifiers}
        rule = partial(Rule, mode, Rules(**rules))
        self.flow = Flow([registered(one) for one in verifiers], "chat", rule, is_sent_early=early)
        self.sent = []
        self.open = []
        self.deeds = []
        self.continues = []
        self.ends = []

    def do(self, actions):
        for action in actions:
            if isinstance(action, Send):
                self.sent.append(action.chunk)
            elif isinstance(action, Ask):
                self.open.append(action.check)
            elif isinstance(action, Drop):
                action.check.is_stale = True
                self.open.remove(action.check)
            elif isinstance(action, Noted):
                self.deeds.append(action.deed)
            elif isinstance(action, Continue):
                self.continues.append(action)
            elif isinstance(action, End):
                self.ends.append(action)

    def say(self, index=0, finish=None, **delta):
        chunk = Chunk.of({"id": "x", "choices": [{"index": index, "delta": delta, "finish_reason": finish}]})
        for part in parts_of(chunk, "chat"):
            self.do(self.flow.said(part))

    async def judge(self, place=0):
        check = self.open.pop(place % len(self.open))
        check.verdict = await self.by_name[check.verifier.name].verify(check.step, None)
        self.do(self.flow.settled(check))

    async def judge_all(self):
        while self.open:
            await self.judge()

    @property
    def body(self):
        return fold([chunk.data for chunk in self.sent], "chat")

    def text(self, index=0):
        choices = {choice["index"]: choice for choice in self.body["choices"]} if self.sent else {}
        return (choices.get(index, {}).get("message") or {}).get("content") or ""

    def finish(self, index=0):
        return next(choice["finish_reason"] for choice in self.body["choices"] if choice["index"] == index)


@given(SECRET, st.lists(st.integers(0, 9), max_size=40), st.sampled_from(MODES), st.booleans())
async def test_a_clean_answer_arrives_whole_in_every_mode_and_order(words, order, mode, early):
    play = Play(mode, Sums(), early=early)
    for word in words:
        play.say(content=word)
        for place in order[:2]:
            if play.open:
                await play.judge(place)
    play.say(finish="stop")
    await play.judge_all()

    assert play.text() == "".join(words)
    assert play.finish() == "stop"
    assert play.flow.is_over


@given(SECRET, st.lists(st.integers(0, 9), max_size=40), st.sampled_from(["gate", "intervene"]))
async def test_what_is_held_is_never_sent_before_its_verdict(words, order, mode):
    play = Play(mode, Forbids(), corrections=0)
    for word in words:
        play.say(content=word)
        if order and play.open:
            await play.judge(order.pop())
        assert "secret" not in play.text()
    play.say(finish="stop")
    await play.judge_all()

    whole = "".join(words)
    lines = whole.splitlines(keepends=True)
    clean = [line for line in lines[: next((i for i, line in enumerate(lines) if "secret" in line), len(lines))]]
    assert play.finish() == ("content_filter" if "secret" in whole else "stop")
    assert "".join(clean).startswith(play.text())
    assert play.flow.is_over


@given(
    st.lists(st.sampled_from(["A", " 1 + 1 = 3", ".", " Yes.", " 2 + 2 = 4.", "\n"]), max_size=12), st.integers(1, 9)
)
async def test_chunks_of_any_size_give_the_same_deeds_and_text(words, size):
    text = "".join(words)
    told = []
    for step in (1, size, len(text) or 1):
        play = Play("intervene", Sums(), corrections=99)
        for start in range(0, len(text), step):
            play.say(content=text[start : start + step])
            await play.judge_all()
            if play.continues:
                break
        else:
            play.say(finish="stop")
            await play.judge_all()
        told.append((play.text(), [(one.mending.at, one.mending.insert) for one in play.continues][:1]))

    assert told[0][1] == told[1][1] == told[2][1]
    assert told[0][0] == told[1][0] == told[2][0]


async def test_a_step_is_sent_as_soon_as_it_is_verified_and_no_later():
    play = Play("gate", Sums())
    play.say(content="One. Tw")

    assert play.text() == ""
    await play.judge()
    assert play.text() == "One."
    play.say(content="o.")
    assert play.text() == "One."


async def test_the_answer_waits_for_the_thoughts():
    play = Play("gate", Sums())
    play.say(reasoning_content="Hm. So")
    play.say(content="Yes. ")

    await play.judge(-1)
    assert play.text() == ""
    await play.judge_all()
    assert play.text() == "Yes."


@pytest.mark.parametrize("mode", ["gate", "intervene"])
async def test_a_wrong_tool_call_is_never_sent(mode):
    play = Play(mode, Calls(), corrections=1)
    play.say(content="I call.")
    play.say(tool_calls=[{"index": 0, "id": "c", "function": {"name": "rm", "arguments": ""}}])
    play.say(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}])
    play.say(finish="tool_calls")
    await play.judge_all()

    assert "tool_calls" not in play.body["choices"][0].get("message", {})
    assert play.text() == "I call."
    if mode == "intervene":
        assert play.continues[0].mending.call["function"] == {"name": "rm", "arguments": "{}"}
        assert play.continues[0].mending.note == "There is no tool rm."
    else:
        assert play.finish() == "content_filter"


async def test_a_call_after_one_that_was_sent_cannot_be_mended():
    play = Play("intervene", Calls())
    play.say(tool_calls=[{"index": 0, "id": "a", "function": {"name": "add", "arguments": "{}"}}])
    play.say(tool_calls=[{"index": 1, "id": "b", "function": {"name": "rm", "arguments": "{}"}}])
    await play.judge()
    play.say(finish="tool_calls")
    await play.judge_all()

    assert [call["id"] for call in play.body["choices"][0]["message"]["tool_calls"]] == ["a"]
    assert play.finish() == "content_filter"


async def test_how_it_ends_is_told_once_it_is_known():
    play = Play("optimistic", Forbids())
    play.say(content="secret", finish="stop")

    assert play.text() == "secret"
    assert not play.sent[-1].data["choices"][0]["finish_reason"]
    await play.judge_all()
    assert play.finish() == "content_filter"


async def test_choices_are_judged_apart():
    play = Play("gate", Forbids())
    play.say(0, content="secret\n")
    play.say(1, content="fine\n")
    await play.judge_all()
    play.say(1, finish="stop")
    await play.judge_all()

    assert (play.text(0), play.finish(0)) == ("", "content_filter")
    assert (play.text(1), play.finish(1)) == ("fine\n", "stop")


async def test_a_wrong_step_makes_way_for_the_right_one():
    play = Play("intervene", Sums())
    for piece in ("Well.", " 3 + 4", " = 8.", " Bob", " = 8. "):
        play.say(content=piece)
    await play.judge_all()
    (go_on,) = play.continues

    assert go_on.mending.content == "Well. 3 + 4 = 7."
    assert go_on.kept == (Kept(1),)
    play.say(content=" Bob = 7.")
    play.say(finish="stop")
    await play.judge_all()
    assert play.text() == "Well. 3 + 4 = 7. Bob = 7."


async def test_an_earlier_violation_that_is_told_later_cuts_again():
    play = Play("intervene", Sums())
    play.say(content="1 + 1 = 3. 2 + 2 = 5. Then")
    await play.judge(1)
    await play.judge(0)

    assert [one.mending.content for one in play.continues] == ["1 + 1 = 3. 2 + 2 = 4.", "1 + 1 = 2."]


async def test_what_a_later_cut_takes_of_an_earlier_call_is_not_kept():
    play = Play("intervene", Sums())
    for piece in ("Well.", " 1 + 1 = 3.", " 2 + 2 = 5.", " Then"):
        play.say(content=piece)
    await play.judge(0)
    await play.judge(1)
    for piece in (" So", " on"):
        play.say(content=piece)
    await play.judge(0)

    assert [one.kept for one in play.continues] == [(Kept(2),), (Kept(1), Kept())]


async def test_nothing_of_any_call_is_kept_where_it_begins_again():
    play = Play("intervene", Sums(), corrections=1, then="retry", early=False)
    play.say(reasoning_content="Well. 1 + 1 = 3. ")
    await play.judge_all()
    play.say(reasoning_content="2 + 2 = 5. ")
    await play.judge_all()
    play.say(content="Fine. ")
    play.say(reasoning_content="Hm.")

    assert play.deeds == ["rewrite", "retry"]
    assert [one.kept for one in play.continues] == [(Kept(),), (Kept(), Kept())]
    assert play.flow.thoughts_of(0) == 1


async def test_corrections_are_counted_and_then_the_policy_decides():
    play = Play("intervene", Sums(), corrections=1, then="accept")
    play.say(content="1 + 1 = 3. ")
    await play.judge_all()
    play.say(content="2 + 2 = 5. ")
    play.say(finish="stop")
    await play.judge_all()

    assert play.deeds == ["rewrite", "flag"]
    assert play.text() == "1 + 1 = 2.2 + 2 = 5. "


async def test_a_retry_begins_again_only_while_nothing_was_sent():
    early, late = Play("gate", Sums(), then="retry"), Play("gate", Sums(), then="retry")
    early.say(content="1 + 1 = 3. ")
    late.say(content="One. 1 + 1 = 3. ")
    await early.judge_all()
    await late.judge_all()

    assert (early.deeds, late.deeds) == (["retry"], ["stop"])


async def test_a_client_that_gets_all_at_the_end_has_not_seen_anything():
    play = Play("gate", Sums(), then="retry", early=False)
    play.say(content="One. 1 + 1 = 3. ")
    await play.judge_all()

    assert play.deeds == ["retry"]
    assert play.sent == []


async def test_a_stopped_answer_says_who_stopped_it_and_not_why():
    play = Play("optimistic", Forbids())
    play.say(content="the secret\n")
    await play.judge_all()
    (choice,) = play.sent[-1].data["choices"]

    assert choice["predawn"] == {"stopped_by": "forbids", "where": "content", "step": 0}
    assert play.ends[0].kept == (Kept(1),)


async def test_chunks_that_need_not_be_cut_leave_as_they_came():
    play = Play("gate", Sums())
    raw = b'data: {"choices":[{"index":0,"delta":{"content":"One. "},"x":1,"finish_reason":null}]}\n\n'
    for part in parts_of(Chunk(raw), "chat"):
        play.do(play.flow.said(part))
    play.say(finish="stop")
    play.open[0].verdict = play.open[1].verdict = Verdict("pass")
    play.do(play.flow.settled(play.open[1]))
    play.do(play.flow.settled(play.open[0]))

    assert play.sent[0].raw == raw


async def test_a_stopped_choice_says_so_once_while_another_goes_on():
    play = Play("optimistic", Forbids())
    play.say(0, content="secret\nmore secret")
    play.say(1, content="fine")
    await play.judge(0)
    play.do(play.flow.ended(0))
    await play.judge_all()
    finishes = [chunk for chunk in play.sent if chunk.data["choices"][0]["finish_reason"]]

    assert len(finishes) == 1
    assert play.deeds == ["stop"]


@pytest.mark.parametrize("mode", ["gate", "intervene"])
async def test_a_call_in_the_old_manner_is_held_like_any_other(mode):
    play = Play(mode, Calls(), corrections=0)
    play.say(function_call={"name": "rm", "arguments": ""})
    play.say(function_call={"arguments": "{}"})
    play.say(finish="function_call")
    await play.judge_all()

    assert all("function_call" not in chunk.data["choices"][0]["delta"] for chunk in play.sent)
    assert play.finish() == "content_filter"


async def test_a_call_that_changes_its_name_is_judged_again():
    play = Play("gate", Calls())
    play.say(tool_calls=[{"index": 0, "id": "a", "function": {"name": "add", "arguments": "{}"}}])
    play.say(tool_calls=[{"index": 1, "id": "b", "function": {"name": "add", "arguments": "{}"}}])
    await play.judge_all()
    play.say(tool_calls=[{"index": 0, "function": {"name": "rm"}}])
    play.say(finish="tool_calls")
    await play.judge_all()

    assert "rm" not in str([chunk.data for chunk in play.sent])
    assert play.finish() == "content_filter"


async def test_content_in_parts_is_read_too():
    play = Play("gate", Forbids())
    play.say(content=[{"type": "text", "text": "fine\n"}])
    play.say(content=[{"type": "text", "text": "the secret\n"}])
    await play.judge_all()

    assert "secret" not in str([chunk.data for chunk in play.sent])
    assert [chunk.data["choices"][0]["delta"].get("content") for chunk in play.sent][0] == [
        {"type": "text", "text": "fine\n"}
    ]
    assert play.finish() == "content_filter"


async def test_what_the_model_goes_on_from_is_what_the_client_has_with_log_probabilities_too():
    play = Play("intervene", Sums())
    chunk = {"index": 0, "delta": {"content": "One. 1 + 1 = 3. "}, "logprobs": {"content": []}, "finish_reason": None}
    for part in parts_of(Chunk.of({"id": "x", "choices": [chunk]}), "chat"):
        play.do(play.flow.said(part))
    await play.judge_all()
    play.say(finish="stop")
    await play.judge_all()

    assert play.continues[0].mending.content == "One. 1 + 1 = 2."
    assert play.text() == "One. 1 + 1 = 2."


async def test_an_answer_does_not_wait_for_its_end_where_thoughts_come_between():
    play = Play("gate", Sums())
    play.say(reasoning_content="Hm. ")
    play.say(content="One. ")
    play.say(reasoning_content="Well. ")
    play.say(content="Two. ")
    await play.judge_all()

    assert play.text() == "One. Two."


@pytest.mark.parametrize("name", ["add", "rm"])
async def test_a_custom_call_is_held_and_read_like_any_other(name):
    play = Play("intervene", Calls())
    play.say(tool_calls=[{"index": 0, "id": "c", "type": "custom", "custom": {"name": name, "input": ""}}])
    play.say(tool_calls=[{"index": 0, "custom": {"input": "print"}}])
    play.say(tool_calls=[{"index": 0, "custom": {"input": "(1)"}}])
    assert play.sent == []
    play.say(finish="tool_calls")
    step = play.open[0].step
    await play.judge_all()

    assert (step.text, step.tool_call["type"]) == ("print(1)", "custom")
    assert step.tool_call["function"] == {"name": name, "arguments": "print(1)"}
    if name == "add":
        (call,) = play.body["choices"][0]["message"]["tool_calls"]
        assert call == {"id": "c", "type": "custom", "custom": {"name": "add", "input": "print(1)"}}
    else:
        assert play.sent == []
        assert play.continues[0].mending.call == step.tool_call


DETAILS = [{"type": "reasoning.text", "index": 0, "text": "One. 1 + 1 = 3. ", "signature": None}]


@pytest.mark.parametrize("thought", [DETAILS[0]["text"], None])
@pytest.mark.parametrize("details", [DETAILS, [*DETAILS, {"type": "reasoning.encrypted", "data": "x"}]])
async def test_thoughts_told_in_detail_are_not_sent_beside_what_was_cut(thought, details):
    play = Play("gate", Sums())
    play.say(reasoning=thought, reasoning_details=details)
    await play.judge_all()
    sent = str([chunk.data for chunk in play.sent])

    assert "One." in sent
    assert "= 3" not in sent
    assert play.finish() == "content_filter"


@pytest.mark.parametrize("mode", MODES)
async def test_what_was_sent_leaves_nothing_for_the_garbage_collector(mode):
    play = Play(mode, Sums())
    play.say(content="One. ")
    await play.judge_all()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(2000):
        play.say(content=" two.\n")
        await play.judge_all()
        play.sent.clear()
    gc.collect()

    assert len(gc.get_objects()) - before < 200


async def test_thoughts_told_in_detail_are_cut_where_the_thoughts_are():
    play = Play("gate", Sums())
    details = [{**DETAILS[0], "text": "Fine. "}]
    play.say(reasoning="Fine. ", reasoning_details=details)
    play.say(content="Yes.", finish="stop")
    await play.judge_all()

    deltas = [chunk.data["choices"][0]["delta"] for chunk in play.sent]

    assert [delta.get("reasoning_details") for delta in deltas if "reasoning" in delta] == [
        [{**DETAILS[0], "text": "Fine."}],
        [{**DETAILS[0], "text": " "}],
    ]
