"""What holds for every strategy, whatever happens: it ends, keeps its limit, and gives an answer if there is one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.plugins.sampling.strategies.driver import Driver, passed, said

from predawn.plugins.sampling.strategies import STRATEGIES
from predawn.plugins.sampling.strategies.protocol import WHYS, Finished

NAMES = sorted(STRATEGIES)
options = st.fixed_dictionaries(
    {
        "samples": st.integers(1, 20),
        "rounds": st.integers(1, 5),
        "min_samples": st.integers(1, 20),
        "epsilon": st.sampled_from([1e-6, 0.05, 0.5]),
        "beta": st.floats(0, 1),
        "first": st.integers(1, 20),
        "hedge_after_s": st.sampled_from([0.5, float("inf")]),
        "fallback": st.sampled_from(["judge", "single"]),
    }
)
samples = st.builds(
    said,
    st.sampled_from([None, 1, 2, 3]),
    text=st.sampled_from(["", "It is 1.", "Perhaps 2.", "Three"]),
    tokens=st.integers(0, 50),
    finish_reason=st.sampled_from(["stop", "stop", "stop", "length", "content_filter", ""]),
    verdicts=st.lists(st.sampled_from(["pass", "violation", "unsure"]), max_size=2).map(lambda them: passed(*them)),
    mean_logprob=st.none() | st.floats(-5, 0),
    worst_logprob=st.none() | st.floats(-9, 0.5) | st.just(float("nan")),
)


def play(name: str, given_options: dict[str, Any], data: st.DataObject) -> Driver:
    driver = Driver(name, **given_options)
    for _ in range(200):
        if driver.stop is not None:
            return driver
        happenings = ["finish", "finish", "fail", "grow"] if driver.running else []
        happenings += ["wake"] if driver.alarm is not None else []
        happenings += ["judge"] if driver.asked is not None else []
        assert happenings, f"{driver.strategy!r} waits for nothing"
        happenings += ["hurry"]
        happening = data.draw(st.sampled_from(happenings))
        if happening == "hurry":
            driver.hurry()
            assert driver.stop is not None or not driver.finished
        elif happening == "wake":
            driver.wake()
        elif happening == "judge":
            driver.judge(lambda left, right: data.draw(st.sampled_from([left, right, None, 999])))
        else:
            index = data.draw(st.sampled_from(driver.running))
            if happening == "finish":
                driver.finish(data.draw(samples), index)
            elif happening == "fail":
                driver.fail(index)
            elif driver.strategy.progress_every:
                driver.grow(index, tokens=3, worst_logprob=data.draw(st.none() | st.floats(-9, 0)))
    raise AssertionError(f"{driver.strategy!r} does not end")


@settings(max_examples=300)
@given(st.sampled_from(NAMES), options, st.data())
def test_every_strategy_ends_within_its_limit(name: str, given_options: dict[str, Any], data: st.DataObject) -> None:
    driver = play(name, given_options, data)
    assert driver.stop is not None

    assert driver.stop.why in WHYS
    assert driver.started <= given_options["samples"]
    assert driver.stop.winner is not None or not driver.finished
    assert 0 <= (driver.stop.agreement or 0) <= 1
    assert 0 <= (driver.stop.confidence or 0) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_if_every_sample_fails_there_is_no_winner(name: str) -> None:
    driver = Driver(name, samples=5)
    while driver.stop is None:
        driver.fail()

    assert (driver.stop.winner, driver.stop.why) == (None, "failed")


@pytest.mark.parametrize("name", NAMES)
def test_a_limit_of_one_takes_the_one(name: str) -> None:
    driver = Driver(name, samples=1, rounds=1, min_samples=1).answer(said(7))
    assert driver.stop is not None

    assert driver.stop.winner == 0


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_asked_once_it_has_stopped(name: str) -> None:
    driver = Driver(name, samples=1, rounds=1).answer(said(7))

    assert driver.strategy.on(Finished(said(8))) == ()


@pytest.mark.parametrize("name", NAMES)
def test_samples_that_nobody_started_are_not_counted(name: str) -> None:
    driver = Driver(name, samples=3)
    driver.tell(Finished(said(9, 77)))

    assert driver.stop is None


@pytest.mark.parametrize("name", NAMES)
def test_strategies_know_their_names_and_tell_their_state(name: str) -> None:
    driver = Driver(name, samples=2)

    assert driver.strategy.name == name
    assert "running" in repr(driver.strategy)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"hedge", "single"}))
def test_when_the_time_is_up_the_first_to_end_is_the_answer(name: str) -> None:
    driver = Driver(name, samples=5, rounds=3).hurry().answer(said(7))
    assert driver.stop is not None

    assert (driver.stop.winner, driver.stop.why) == (0, "late")
