"""What a request asks of sampling, and who is heard: client, budget, settings."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predawn.plugins import Budget, Exchange, RequestError
from predawn.plugins.sampling.control import Pass, Plan, plan_of
from predawn.plugins.sampling.settings import SamplingSettings


def exchange(
    sampling: Any = None, budget: Budget | None = None, route: Any = "chat", path: str = "", **request: Any
) -> Exchange:
    body = msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": "Hello"}], **request})
    control = {} if sampling is None else {"sampling": sampling}
    made = Exchange(body, model="m", route=route, path=path or f"/{route}", control=control)
    made.budget = budget
    return made


def planned(*args: Any, settings: dict[str, Any] | None = None, **kwargs: Any) -> Plan:
    plan = plan_of(exchange(*args, **kwargs), SamplingSettings(**(settings or {})))
    assert isinstance(plan, Plan)
    return plan


def passed(*args: Any, settings: dict[str, Any] | None = None, **kwargs: Any) -> str:
    plan = plan_of(exchange(*args, **kwargs), SamplingSettings(**(settings or {})))
    assert isinstance(plan, Pass)
    return plan.why


def test_nothing_is_drawn_unless_somebody_asks() -> None:
    assert passed() == ""


def test_a_client_may_ask_by_number() -> None:
    plan = planned({"samples": 5})

    assert (plan.strategy, plan.samples, plan.by, plan.asked) == ("vote", 5, "client", True)


def test_a_strategy_may_be_named_alone() -> None:
    assert planned("waves").samples == SamplingSettings().asked_samples


def test_a_budget_says_how_many_where_the_client_does_not() -> None:
    assert planned(budget=Budget(samples=4)).samples == 4
    assert planned({"samples": 2}, budget=Budget(samples=4)).samples == 2


def test_depth_of_a_budget_becomes_revision() -> None:
    plan = planned(budget=Budget(samples=1, rounds=3))

    assert (plan.strategy, plan.rounds, plan.samples) == ("revise", 3, 3)


def test_a_budget_of_one_sample_is_a_plain_call() -> None:
    assert passed(budget=Budget(), settings={"samples": 8}) == ""


def test_settings_bound_what_is_asked() -> None:
    assert planned({"samples": 1000}, settings={"max_samples": 9}).samples == 9
    assert planned({"strategy": "revise", "rounds": 1000}, settings={"max_rounds": 2}).rounds == 2
    assert planned(budget=Budget(samples=500), settings={"max_samples": 3}).samples == 3


@pytest.mark.parametrize("off", ["off", False, "false", "no", {"strategy": "off"}, {"samples": 1}])
def test_a_client_may_switch_it_off(off: Any) -> None:
    assert passed(off, settings={"samples": 8}) == ""


def test_a_house_may_leave_nothing_to_clients() -> None:
    assert passed({"samples": 5}, settings={"client_may": False}) == "clients may not ask for samples"


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"sampels": 3}, "sampels"),
        ({"samples": 0}, "between"),
        ({"samples": "many"}, "int"),
        ({"strategy": "guess"}, "guess"),
        ({"epsilon": 1.0}, "epsilon"),
        ({"temperature": -1}, "temperature"),
        (7, "object"),
        ([], "object"),
    ],
)
def test_what_cannot_be_meant_is_refused(wish: Any, words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        planned(wish)

    assert caught.value.status == 400
    assert str(caught.value.param).startswith("predawn.sampling")


def test_not_a_number_is_refused() -> None:
    with pytest.raises(RequestError):
        planned({"epsilon": float("nan")})


def test_n_keeps_its_meaning() -> None:
    assert passed({"samples": 5}, n=2) == "the client asked for n choices"
    assert planned({"samples": 5}, n=1).samples == 5


@pytest.mark.parametrize("text", ["--strategy=judge", "x-predawn-sampling: off", '{"predawn":{"sampling":"off"}}'])
def test_user_text_never_switches_strategy(text: str) -> None:
    plan = planned({"samples": 3}, messages=[{"role": "user", "content": text}, {"role": "system", "content": text}])

    assert plan == planned({"samples": 3})


@pytest.mark.parametrize(
    ("route", "request_", "why"),
    [
        ("messages", {}, "not for /messages"),
        ("embeddings", {}, "not for /embeddings"),
        ("chat", {"modalities": ["text", "audio"]}, "sound cannot be compared"),
        ("chat", {"audio": {"voice": "alloy"}}, "sound cannot be compared"),
        ("completions", {"prompt": ["a", "b"]}, "several prompts"),
        ("completions", {"prompt": "a", "best_of": 3}, "the client asked for best_of"),
        ("responses", {"input": "a", "background": True}, "it runs in the background"),
        ("responses", {"input": "a", "conversation": "c"}, "each response would be added to the conversation"),
        ("responses", {"input": "a", "tools": [{"type": "web_search"}]}, "its tools are run by the provider"),
    ],
)
def test_what_cannot_be_drawn_again_passes_and_says_why(route: Any, request_: dict[str, Any], why: str) -> None:
    assert passed({"samples": 3}, route=route, **request_) == why


@pytest.mark.parametrize(
    ("route", "request_"),
    [
        ("completions", {"prompt": "a"}),
        ("completions", {"prompt": [1, 2, 3]}),
        ("completions", {"prompt": ["a"], "best_of": 1}),
        ("responses", {"input": "a", "tools": [{"type": "function", "name": "f"}]}),
    ],
)
def test_other_endpoints_are_drawn_where_that_makes_sense(route: Any, request_: dict[str, Any]) -> None:
    assert planned({"samples": 3}, route=route, **request_).samples == 3


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(
    ["strategy", "samples", "rounds", "epsilon", "beta", "first", "min_samples", "stream", "answer"]
)


@given(wish=anything | st.dictionaries(names, anything, max_size=4), samples=st.integers(-5, 10**9))
def test_no_wish_goes_beyond_the_settings_or_breaks_anything(wish: Any, samples: int) -> None:
    settings = SamplingSettings(max_samples=12, max_rounds=4)
    for asked in (wish, {"samples": samples}):
        try:
            plan = plan_of(exchange(asked), settings)
        except RequestError as exc:
            assert exc.status == 400
        else:
            assert isinstance(plan, Pass) or (1 <= plan.samples <= 12 and 1 <= plan.first <= plan.samples)


@given(samples=st.integers(1, 10**6), rounds=st.integers(1, 10**6))
def test_no_budget_goes_beyond_the_settings(samples: int, rounds: int) -> None:
    settings = SamplingSettings(max_samples=12, max_rounds=4)
    plan = plan_of(exchange(budget=Budget(samples=samples, rounds=rounds)), settings)

    assert isinstance(plan, Pass) or (plan.samples <= 12 and plan.rounds <= 4)
