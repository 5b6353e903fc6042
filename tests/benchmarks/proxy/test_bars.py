from tests.benchmarks.proxy.bars import (
    ALL_BARS,
    FAST_BARS,
    Samples,
    complaints,
    cpu_small,
    idle_bars,
    ratio_bars,
    ratios_with,
)
from tests.benchmarks.proxy.measure import Sample


def sample(peer, round_, cpu_us, *, errors=0, completed=100, upstream=100):
    load = {
        "ok": completed - errors,
        "errors": errors,
        "completed": completed,
        "chunks_all": 0,
        "status": {"200": completed},
    }
    return Sample(peer, "small", round_, load, cpu_us, 0, upstream)


def test_a_ratio_is_the_median_of_the_ratios_within_each_round():
    raw = [sample("a", r, cpu) for r, cpu in enumerate((100, 200, 900))] + [sample("b", r, 100) for r in range(3)]

    assert Samples.of(raw, 3).ratio(cpu_small, "a", "b") == 2.0


def test_a_round_in_which_one_side_failed_does_not_count():
    raw = [sample("a", 0, 100), sample("b", 0, 100, errors=5), sample("a", 1, 300), sample("b", 1, 100)]

    assert Samples.of(raw, 2).ratio(cpu_small, "a", "b") == 3.0


def test_a_bar_against_a_missing_peer_stays_open_and_says_why():
    bars = ratio_bars(Samples.of([sample("predawn", 0, 100)], 1), {"litellm": "no network"})

    bar = bars["CPU per request, 1.5 KB, of LiteLLM's"]
    assert bar.holds is None
    assert bar.reason == "litellm: no network"


def test_each_bar_has_a_name_of_its_own_and_says_whose_it_is():
    bars = ratio_bars(Samples.of([], 1), {})

    assert len(bars) == len(ALL_BARS)
    assert {spec.peer for spec in FAST_BARS} == {"predawn-keys", "predawn-idle"}


def test_the_fast_lane_s_ratios_are_told_of_other_peers_too():
    raw = [sample("predawn", 0, 100), sample("vllm-router", 0, 50)]

    ratios = ratios_with("predawn", Samples.of(raw, 1))

    assert ratios["CPU per request, 1.5 KB, of vllm-router's"] == 2.0
    assert ratios["CPU per chunk of 32 streams, of nginx's"] is None


def test_the_memory_of_idle_streams_has_a_bar_for_each_lane_and_counts_only_whole():
    idle = {"predawn": {"streams": 1000, "delta_mb": 20.0}, "predawn-keys": {"streams": 900, "delta_mb": 5.0}}

    old, fast = idle_bars(idle, {}, 1000).values()

    assert (old.value, old.holds) == (20.0, True)
    assert (fast.value, fast.reason) == (None, "only 900 of 1000 streams were open")


def test_requests_that_never_reached_the_upstream_are_complained_about():
    assert complaints([sample("a", 0, 1, upstream=40)]) == ["a, small, round 0: 100 requests became 40 upstream"]
