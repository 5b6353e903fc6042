"""One table from effort to each upstream's own words; what the client says itself stands."""

import pytest

from predawn.plugins.knobs import (
    EFFORTS,
    choices_of,
    knows,
    leaves_open,
    limit,
    members_for,
    nearest,
    put,
    said,
)

KNOBS = ("reasoning_effort", "enable_thinking", "thinking_budget", "thinking_token_budget")


@pytest.mark.parametrize("knob", KNOBS)
def test_every_knob_has_words_for_every_effort(knob):
    assert all(members_for(knob, effort) for effort in EFFORTS)
    assert knows(knob)


def test_a_model_without_a_knob_is_asked_nothing():
    assert members_for("none", "high") == {}
    assert knows("none") == ()


@pytest.mark.parametrize(
    ("knob", "effort", "expected"),
    [
        ("reasoning_effort", "low", {"reasoning_effort": "low"}),
        ("reasoning_effort", "max", {"reasoning_effort": "high"}),
        ("enable_thinking", "none", {"chat_template_kwargs": {"enable_thinking": False}}),
        ("enable_thinking", "medium", {"chat_template_kwargs": {"enable_thinking": True}}),
        ("thinking_budget", "none", {"thinking": {"type": "disabled"}}),
        ("thinking_budget", "low", {"thinking": {"type": "enabled", "budget_tokens": 2048}}),
        ("thinking_token_budget", "none", {"thinking_token_budget": 0}),
    ],
)
def test_each_upstream_hears_its_own_words(knob, effort, expected):
    assert members_for(knob, effort) == expected


def test_a_thinking_budget_leaves_room_for_the_answer_and_is_none_where_there_is_no_room():
    assert members_for("thinking_budget", "high", max_tokens=4096)["thinking"]["budget_tokens"] == 3072
    assert members_for("thinking_budget", "high", max_tokens=1500) == {"thinking": {"type": "disabled"}}


@pytest.mark.parametrize(
    "request_",
    [
        {"reasoning_effort": "low"},
        {"reasoning": {"effort": "high"}},
        {"thinking": {"type": "disabled"}},
        {"enable_thinking": False},
        {"thinking_token_budget": 0},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"chat_template_kwargs": {"reasoning_effort": "low"}},
        {"thinking_budget": 100},
    ],
)
def test_who_says_how_much_to_think_has_decided(request_):
    assert said(request_)


def test_other_members_decide_nothing():
    assert not said({"messages": [], "chat_template_kwargs": {"tone": "dry"}, "reasoning_effort": None})


def test_what_a_client_says_to_the_template_is_kept():
    request = {"chat_template_kwargs": {"tone": "dry"}}
    put(request, members_for("enable_thinking", "none"))

    assert request["chat_template_kwargs"] == {"tone": "dry", "enable_thinking": False}


@pytest.mark.parametrize(
    ("route", "knob", "expected"),
    [
        ("chat", "enable_thinking", True),
        ("responses", "reasoning_effort", True),
        ("responses", "enable_thinking", False),
        ("messages", "thinking_budget", True),
        ("messages", "reasoning_effort", False),
        ("completions", "reasoning_effort", False),
    ],
)
def test_not_every_route_has_words_for_every_knob(route, knob, expected):
    assert leaves_open({}, route, knob) is expected


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({}, 1),
        ({"n": 8}, 8),
        ({"n": "8"}, 8),
        ({"n": 2, "best_of": 5}, 5),
        ({"n": 2, "prompt": ["a", "b", "c"]}, 6),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": [[1, 2], [3]]}, 2),
        ({"n": "many", "best_of": -1}, 1),
    ],
)
def test_answers_that_the_client_asks_for_are_counted_as_lenient_upstreams_count_them(request_, expected):
    assert choices_of(request_) == expected


@pytest.mark.parametrize(
    ("accepted", "effort", "expected"),
    [(("low", "medium", "high"), "none", "low"), (("none", "medium"), "max", "medium"), ((), "low", None)],
)
def test_an_effort_that_is_not_accepted_becomes_the_nearest(accepted, effort, expected):
    assert nearest(effort, accepted) == expected


@pytest.mark.parametrize(
    ("standing", "route", "knob", "expected"),
    [
        ({"max_tokens": 50}, "chat", "none", {"max_tokens": 50}),
        ({"max_tokens": 500}, "chat", "none", {"max_tokens": 100}),
        ({"max_completion_tokens": 500}, "chat", "none", {"max_completion_tokens": 100}),
        ({"max_tokens": 60.0}, "chat", "none", {"max_tokens": 60.0}),
        ({"max_tokens": -1}, "chat", "none", {"max_tokens": 100}),
        ({"max_tokens": 1e99}, "chat", "none", {"max_tokens": 100}),
        (
            {"max_tokens": 10, "max_completion_tokens": 500},
            "chat",
            "none",
            {"max_tokens": 10, "max_completion_tokens": 100},
        ),
        ({"max_tokens": "500"}, "chat", "none", {"max_tokens": 100}),
        ({"max_tokens": "all"}, "chat", "none", {"max_tokens": "all"}),
        ({"max_tokens": 0}, "completions", "none", {"max_tokens": 0}),
        ({"max_tokens": 10, "n_predict": -1}, "chat", "none", {"max_tokens": 10, "n_predict": 100}),
        ({}, "chat", "none", {"max_tokens": 100}),
        ({}, "chat", "reasoning_effort", {"max_completion_tokens": 100}),
        ({}, "responses", "reasoning_effort", {"max_output_tokens": 100}),
    ],
)
def test_a_limit_is_lowered_where_it_stands_and_added_where_there_is_none(standing, route, knob, expected):
    limit(standing, route, knob, 100)

    assert standing == expected
