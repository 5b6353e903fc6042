"""What a revision is asked."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from predawn.plugins import Verdict
from predawn.plugins.sampling.revising import LONGEST_QUOTE, followed_by, quoted, revised, shortened
from predawn.plugins.sampling.strategies.protocol import Sample

CHAT: dict[str, Any] = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]}


def test_the_conversation_stays_as_it_is_and_the_attempts_come_after_it() -> None:
    members = revised(CHAT, "chat", [Sample(0, "It is 5."), Sample(1, "It is 4.")])

    assert members is not None
    assert members["messages"][:2] == CHAT["messages"]
    assert members["messages"][2]["role"] == "user"
    assert "It is 5." in members["messages"][2]["content"]
    assert "It is 4." in members["messages"][2]["content"]
    assert len(CHAT["messages"]) == 2


def test_what_a_check_found_is_told() -> None:
    found = Verdict("violation", feedback="2 + 2 is not 5")
    members = revised(CHAT, "chat", [Sample(0, "It is 5.", verdicts=(found, Verdict("pass", feedback="fine")))])

    assert members is not None
    assert "2 + 2 is not 5" in members["messages"][2]["content"]
    assert "fine" not in members["messages"][2]["content"]


def test_each_endpoint_is_asked_in_its_own_words() -> None:
    assert followed_by({"prompt": "P"}, "completions", "W") == {"prompt": "P\n\nW\n\n"}
    assert followed_by({"prompt": ["P"]}, "completions", "W") == {"prompt": "P\n\nW\n\n"}
    assert followed_by({"input": "P"}, "responses", "W") == {
        "input": [{"role": "user", "content": "P"}, {"role": "user", "content": "W"}]
    }
    assert followed_by({"input": [{"role": "user", "content": "P"}]}, "responses", "W") == {
        "input": [{"role": "user", "content": "P"}, {"role": "user", "content": "W"}]
    }


def test_a_prompt_of_tokens_cannot_be_added_to() -> None:
    assert revised({"prompt": [1, 2, 3]}, "completions", [Sample(0, "x")]) is None


@given(st.text(max_size=200))
def test_a_quoted_text_cannot_end_its_own_quotation(text: str) -> None:
    said = quoted("attempt 1", text)
    mark = re.match(r"<<<attempt 1 ([0-9a-f]{12})\n", said)

    assert mark is not None
    assert mark[1] not in text
    assert said.endswith(f"\n{mark[1]}>>>")


@given(st.integers(0, 3 * LONGEST_QUOTE))
def test_a_long_answer_is_shown_by_its_ends(length: int) -> None:
    assert len(shortened("x" * length)) <= LONGEST_QUOTE + 60
