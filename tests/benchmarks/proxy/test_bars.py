import random
from dataclasses import replace
from types import SimpleNamespace

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
from tests.benchmarks.proxy.run import measure_rounds
from tests.benchmarks.proxy.workloads import SMALL, SMALL_PAIR


def sample(peer, round_, cpu_us, *, errors=0, completed=100, upstream=100, test=SMALL.name):
    load = {
        "ok": completed - errors,
        "errors": errors,
        "completed": completed,
        "chunks_all": 0,
        "status": {"200": completed},
    }
    return Sample(peer, test, round_, load, cpu_us, 0, upstream)


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


def test_other_peers_have_once_a_round_what_is_compared_closely():
    raw = [sample("predawn-keys", turn, 100, test=SMALL_PAIR.name) for turn in range(3)]
    raw += [sample("nginx", turn, 50, test=SMALL_PAIR.name) for turn in range(3)]
    raw += [sample("predawn", 0, 300), sample("nginx", 0, 100)]
    samples = Samples.of(raw, 3)

    assert ratios_with("predawn", samples)["CPU per request, 1.5 KB, of nginx's"] == 3.0
    assert ratio_bars(samples, {})["fast lane: CPU per request, 1.5 KB, of nginx's"].value == 2.0


class RecordingStage:
    """Notes who was loaded together, in place of loading them."""

    def __init__(self, *names):
        self.residents = {name: SimpleNamespace(name=name, peer=SimpleNamespace(name=name, tests=())) for name in names}
        self.asked = []

    def sample(self, residents, workload, place, scale):
        names = [resident.name for resident in residents]
        self.asked.append((workload.name, place, sorted(names)))
        return [sample(name, place, 100, test=workload.name) for name in names]


def test_a_round_has_all_turns_of_a_test_each_with_a_place_of_its_own():
    stage = RecordingStage("a", "b", "c")
    pair = replace(SMALL, name="pair", turns=2, only=("a", "b"))
    beside = replace(pair, name="beside", together=True)

    raw = measure_rounds(stage, [SMALL, pair, beside], 2, 1.0, random.Random(1))

    alone = [("small", r, [name]) for r in range(2) for name in "abc"]
    alone += [("pair", turn, [name]) for turn in range(4) for name in "ab"]
    assert sorted(stage.asked) == sorted([*alone, *(("beside", turn, ["a", "b"]) for turn in range(4))])
    assert len(Samples.of(raw, 4).by_place) == len(raw) == 6 + 8 + 8


def test_the_memory_of_idle_streams_has_a_bar_for_each_lane_and_counts_only_whole():
    idle = {"predawn": {"streams": 1000, "delta_mb": 20.0}, "predawn-keys": {"streams": 900, "delta_mb": 5.0}}

    old, fast = idle_bars(idle, {}, 1000).values()

    assert (old.value, old.holds) == (20.0, True)
    assert (fast.value, fast.reason) == (None, "only 900 of 1000 streams were open")


def test_requests_that_never_reached_the_upstream_are_complained_about():
    assert complaints([sample("a", 0, 1, upstream=40)]) == ["a, small, round 0: 100 requests became 40 upstream"]
