"""The gate: sleep only while it is free."""

import pytest

from predawn.plugins.sleep.gate import Gate, GateRules, Hours
from predawn.plugins.sleep.saturation import Load, Saturation, read_load
from predawn.plugins.testing import ManualClock

MIDNIGHT = 1_700_006_400.0  # 2023-11-15 00:00 UTC


def gate(clock=None, **rules):
    return Gate(GateRules(**{"idle_s": 5, **rules}), clock or ManualClock())


def why(found):
    return found.why if found is not None else None


async def test_it_opens_once_an_upstream_was_idle_for_long_enough():
    clock = ManualClock()
    one = gate(clock)
    one.began("vllm")
    seen = [why(one.closed("vllm"))]
    one.ended("vllm")
    for _ in range(3):
        seen.append(why(one.closed("vllm")))
        await clock.advance(2.5)

    assert seen == ["busy", "quiet", "quiet", None]


async def test_upstreams_are_told_apart():
    one = gate()
    one.began("vllm")

    assert why(one.closed("other")) is None


async def test_the_first_request_ends_our_calls_to_the_same_upstream_only():
    ended = []
    one = gate()
    one.enter("vllm", lambda: ended.append("vllm"))
    one.enter("other", lambda: ended.append("other"))

    assert one.began("vllm") == 1
    assert ended == ["vllm"]
    assert one.calls("vllm") == 0
    assert one.began("vllm") == 0


async def test_ends_without_a_beginning_do_no_harm():
    one = gate(idle_s=0)
    one.ended("vllm")
    one.began("vllm")

    assert why(one.closed("vllm")) == "busy"


async def test_a_request_on_another_machine_counts():
    clock = ManualClock()
    one = gate(clock)
    one.heard("vllm")

    assert why(one.closed("vllm")) == "quiet"


async def test_refusals_close_it_for_longer_each_time():
    clock = ManualClock()
    one = gate(clock)
    waits = []
    for _ in range(3):
        one.refused("vllm")
        waits.append(one.closed("vllm").wait_s)
        await clock.advance(waits[-1])

    assert waits == [5, 10, 20]
    assert one.closed("vllm") is None


async def test_it_believes_a_retry_after_within_reason():
    clock = ManualClock()
    one = gate(clock)
    one.refused("vllm", 60)
    first = one.closed("vllm").wait_s
    one.refused("other", float("inf"))
    one.refused("third", 10**9)

    assert first == 60
    assert one.closed("other").wait_s == 5
    assert one.closed("third").wait_s == Saturation.LONGEST_S


async def test_a_burst_of_refusals_counts_once():
    one = gate()
    for _ in range(50):
        one.refused("vllm")

    assert one.closed("vllm").wait_s == 5


async def test_a_queue_closes_it_and_ends_our_calls():
    ended = []
    one = gate(calls_per_upstream=2)
    one.enter("vllm", lambda: ended.append(1))
    one.told("vllm", Load(waiting=0))
    before = list(ended)
    one.told("vllm", Load(waiting=3))

    assert before == []
    assert ended == [1]
    assert one.closed("vllm").why == "saturated"
    assert one.closed("vllm").numbers == {"waiting": 3}


async def test_an_old_load_is_forgotten():
    clock = ManualClock()
    one = gate(clock)
    one.told("vllm", Load(waiting=3))
    await clock.advance(Saturation.LOAD_COUNTS_FOR_S + 1)

    assert one.closed("vllm") is None


async def test_it_lets_in_no_more_calls_than_it_may():
    one = gate(calls_per_upstream=1)
    end = object
    one.enter("vllm", end)
    full = why(one.closed("vllm"))
    one.leave("vllm", end)
    one.leave("vllm", end)

    assert full == "full"
    assert one.closed("vllm") is None


@pytest.mark.parametrize(
    ("spans", "hour", "waits_h"),
    [
        ((), 12, 0),
        (("22:00-06:00",), 23, 0),
        (("22:00-06:00",), 3, 0),
        (("22:00-06:00",), 6, 16),
        (("22:00-06:00",), 12, 10),
        (("01:00-02:00", "13:00-14:00"), 12, 1),
        (("00:00-24:00",), 12, 0),
        (("06:00-06:00",), 12, 0),
    ],
)
def test_hours_may_go_over_midnight(spans, hour, waits_h):
    assert Hours(spans).wait_s(MIDNIGHT + hour * 3600) == waits_h * 3600


def test_hours_are_those_of_the_place():
    assert Hours(("22:00-06:00",), "America/New_York").wait_s(MIDNIGHT) == 3 * 3600


@pytest.mark.parametrize("span", ["25:00-26:00", "22-06", "24:30-01:00", "10:61-11:00", ""])
def test_what_is_no_span_is_refused(span):
    with pytest.raises(ValueError, match="write one like|beyond"):
        Hours((span,))


@pytest.mark.parametrize("zone", ["Atlantis/Deep", "../../etc/passwd", ""])
def test_what_is_no_time_zone_is_refused(zone):
    with pytest.raises(ValueError, match="no time zone"):
        Hours((), zone)


async def test_outside_of_its_hours_it_is_closed():
    one = Gate(GateRules(idle_s=5, hours=("22:00-06:00",)), ManualClock(MIDNIGHT + 12 * 3600))

    assert one.closed("vllm").why == "hours"
    assert one.closed("vllm").wait_s == 10 * 3600


def test_load_is_read_from_vllm_s_metrics():
    page = """# HELP vllm:num_requests_running Number of requests
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a b"} 2.0
vllm:num_requests_running{engine="1",model_name="a"} 1.0
vllm:num_requests_waiting{engine="0"} 4.0 1700000000
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:kv_cache_usage_perc{engine="1"} 0.5
vllm:other NaN
vllm:num_requests_waiting{engine="1"} NaN
"""

    assert read_load(page) == Load(4, 0.5)
    assert read_load("# nothing\nhttp_requests_total 3\n") is None
    assert read_load("<html>vllm:num_requests_running oops</html>") is None
