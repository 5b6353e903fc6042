from tests.benchmarks.proxy.bars import Samples, complaints, cpu_small, ratio_bars
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


def test_requests_that_never_reached_the_upstream_are_complained_about():
    assert complaints([sample("a", 0, 1, upstream=40)]) == ["a, small, round 0: 100 requests became 40 upstream"]
