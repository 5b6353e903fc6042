"""Less thought where notes hold the answer: in the model's own words, and never against its client."""

import pytest

from predawn.plugins.sleep.effort import is_foreseen, lower, members_for, thinks
from predawn.plugins.sleep.places import Places
from predawn.plugins.sleep.predictability import Guesses, is_covered, telling_words, words_of_all
from predawn.plugins.sleep.recall import Recalled
from predawn.proxy.settings import Settings

SWITCH = {"chat_template_kwargs": {"enable_thinking": False}}


def recalled(notes="Ann = 3. Bob = 7.", *questions):
    return Recalled(1, {}, Guesses(questions), "n", words_of_all(notes), 0)


def places():
    return Places(
        Settings.model_validate(
            {
                "upstreams": [
                    {"name": "ours", "kind": "local"},
                    {"name": "far", "kind": "openai", "base_url": "http://127.0.0.1:1/v1", "api_key": "k"},
                ],
                "models": [
                    {"name": "tiny", "upstream": "ours", "reasoning": "reasoning_effort"},
                    {"name": "switch", "upstream": "ours", "reasoning": "enable_thinking"},
                    {"name": "far", "upstream": "far", "reasoning": "reasoning_effort"},
                    {"name": "plain", "upstream": "far"},
                ],
            }
        )
    )


@pytest.mark.parametrize(
    ("model", "expected"),
    [("tiny", {"reasoning_effort": "none"}), ("switch", SWITCH), ("far", {"reasoning_effort": "low"}), ("plain", {})],
)
def test_no_effort_is_asked_for_in_the_words_that_a_model_understands(model, expected):
    assert places().less_thought(model, "none") == expected


def test_a_switch_knows_no_small_effort_and_unchanged_changes_nothing():
    assert members_for("enable_thinking", "low") == {}
    assert members_for("reasoning_effort", "unchanged") == {}
    assert members_for("reasoning_effort", "minimal") == {"reasoning_effort": "minimal"}


def test_a_request_keeps_what_else_its_client_says_to_the_template():
    request = {"messages": [], "chat_template_kwargs": {"tone": "dry"}}

    assert lower(request, "chat", SWITCH)
    assert request["chat_template_kwargs"] == {"tone": "dry", "enable_thinking": False}


@pytest.mark.parametrize(
    "own",
    [
        {"reasoning_effort": "high"},
        {"enable_thinking": True},
        {"chat_template_kwargs": {"enable_thinking": True}},
        {"thinking": {"type": "enabled", "budget_tokens": 2000}},
    ],
)
def test_what_the_client_decides_stays(own):
    request = {"messages": [], **own}

    assert not lower(request, "chat", SWITCH)
    assert request == {"messages": [], **own}


def test_an_absent_wish_may_be_written_as_null():
    request = {"messages": [], "reasoning_effort": None}

    assert lower(request, "chat", {"reasoning_effort": "low"})
    assert request["reasoning_effort"] == "low"


def test_responses_are_asked_in_their_own_words_and_messages_not_at_all():
    responses, messages = {"input": "?"}, {"messages": []}

    assert lower(responses, "responses", {"reasoning_effort": "low"})
    assert responses == {"input": "?", "reasoning": {"effort": "low"}}
    assert not lower(messages, "messages", {"reasoning_effort": "low"})
    assert not lower({"input": "?"}, "responses", SWITCH)


def test_notes_that_know_every_name_and_number_of_a_question_are_trusted():
    assert is_foreseen("How many apples does Bob have?", recalled())
    assert not is_foreseen("How many apples does Zed have?", recalled())


def test_news_in_the_question_is_not_foreseen_even_where_notes_know_half_of_it():
    assert not is_foreseen("Zed has 4 more than Bob. How many apples does Zed have?", recalled())


def test_a_question_without_names_is_foreseen_only_if_it_was_expected():
    assert not is_foreseen("What is the refund policy?", recalled("- Refunds within a month."))
    assert is_foreseen("what is the refund policy", recalled("- A month.", "What is the refund policy?", "Who pays?"))


def test_a_capital_at_the_beginning_of_any_sentence_makes_no_name():
    known = words_of_all("Ann = 3. Bob = 7.")

    assert telling_words("How many has Bob? Answer with a number. 12 is wrong.") == {"bob", "12"}
    assert is_covered("How many are there in all? Answer briefly.", known)
    assert not is_covered("Zed has 4 more than Bob. How many apples does Zed have?", known)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({}, False),
        ({"reasoning_effort": "high"}, True),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "auto"}, False),
        ({"chat_template_kwargs": {"enable_thinking": True}}, True),
        ({"enable_thinking": False}, False),
    ],
)
def test_a_request_thinks_if_its_client_says_so(request_, expected):
    assert thinks(request_, SWITCH, lowers=True) is expected


def test_a_request_whose_client_says_nothing_thinks_unless_it_is_kept_from_that():
    assert thinks({}, SWITCH, lowers=False)
    assert not thinks({}, {}, lowers=False)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, True),
        ({"thinking": {"type": "disabled"}}, False),
        ({"reasoning": {"effort": "none"}}, False),
        ({"thinking_token_budget": 0}, False),
        ({"reasoning_effort": ["odd"]}, True),
    ],
)
def test_a_client_says_in_many_ways_whether_it_wants_thought(own, expected):
    assert thinks(own, SWITCH, lowers=True) is expected
