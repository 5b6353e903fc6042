from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from predawn.proxy.declared import CNT, KERN
from predawn.proxy.metrics import Metrics

INFO = SimpleNamespace(model="tiny", device="cpu", dtype="float32", execution="packed")


def load(**over):
    told = {"running": 1, "waiting": 2, "pages_used": 3, "pages": 64, "prefilled": 10, "decoded": 5}
    return SimpleNamespace(**{**told, "lookup_accepted": 0, "steps": {}, **over})


@pytest.fixture
def metrics():
    return Metrics(CollectorRegistry())


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(f"predawn_engine_{name}", {"upstream": "local", **labels})


def gauges(metrics):
    requests = [value(metrics, "requests", state=state) for state in ("running", "waiting")]
    return requests + [value(metrics, "kv_pages", state=state) for state in ("used", "total")]


def info(metrics):
    return [labels for labels, gauge in metrics.engine_info.children.items() if gauge.value]


def test_an_engine_is_at_0_before_it_starts(metrics):
    metrics.engine("local")

    assert gauges(metrics) == [0, 0, 0, 0]
    assert value(metrics, "starts_total") == 0
    assert value(metrics, "tokens_total", kind="lookup") == 0


def test_tokens_add_up_across_starts(metrics):
    meters = metrics.engine("local")
    for counts in (10, 25):
        meters.started(INFO)
        meters.busy(load(decoded=counts - 5))
        meters.busy(load(decoded=counts))

    assert value(metrics, "tokens_total", kind="decode") == 35
    assert value(metrics, "tokens_total", kind="prefill") == 20
    assert value(metrics, "starts_total") == 2


def test_what_is_lost_is_no_longer_shown(metrics):
    meters = metrics.engine("local")
    meters.started(INFO)
    meters.busy(load())
    shown = gauges(metrics), info(metrics)
    meters.lost()

    assert shown == ([1, 2, 3, 64], [("local", "tiny", "cpu", "float32", "packed")])
    assert (gauges(metrics), info(metrics)) == ([0, 0, 0, 0], [])


def test_of_two_engines_the_later_one_is_shown(metrics):
    old, new = metrics.engine("local"), metrics.engine("local")
    old.started(INFO)
    new.started(SimpleNamespace(**{**vars(INFO), "model": "other"}))
    new.busy(load(running=7))
    old.busy(load(running=4))
    old.lost()

    assert gauges(metrics) == [7, 2, 3, 64]
    assert [labels[1] for labels in info(metrics)] == ["other"]
    assert value(metrics, "tokens_total", kind="decode") == 10


def steps(prefill, decode, batch):
    counts = [0] * (len(KERN) + 1)
    return {
        "prefill": ([prefill, *counts[1:]], prefill * 1e-5),
        "decode": ([0, decode, *counts[2:]], decode * 2e-5),
        "batch": ([batch, *([0] * len(CNT))], float(batch)),
        "unheard of": ([1], 1.0),
    }


def test_steps_add_up_across_starts(metrics):
    meters = metrics.engine("local")
    for told in (steps(1, 2, 2), steps(3, 5, 5)):
        meters.started(INFO)
        meters.busy(load(steps=told))
        meters.busy(load(steps=steps(3, 5, 5)))

    labels = {"dtype": "float32", "backend": "torch"}
    found = metrics.registry.get_sample_value
    assert found("predawn_kernel_step_seconds_count", {"kernel": "prefill", **labels}) == 6
    assert found("predawn_kernel_step_seconds_bucket", {"kernel": "decode", **labels, "le": "1e-05"}) == 0
    assert found("predawn_kernel_step_seconds_bucket", {"kernel": "decode", **labels, "le": "2.5e-05"}) == 10
    assert found("predawn_kernel_step_seconds_sum", {"kernel": "decode", **labels}) == pytest.approx(2e-4)
    assert value(metrics, "batch_size_count") == 10


def test_an_engine_that_counts_in_other_buckets_is_not_counted(metrics):
    meters = metrics.engine("local")
    meters.started(INFO)
    meters.busy(load(steps={"batch": ([1, 2, 3], 4.0)}))

    assert value(metrics, "batch_size_count") == 0


def test_single_tokens_go_through_the_fused_kernel_where_there_is_a_gpu(metrics):
    metrics.engine("local").started(SimpleNamespace(**{**vars(INFO), "device": "cuda:0"}))

    assert set(metrics.kernel_step.children) == {("prefill", "float32", "torch"), ("decode", "float32", "triton")}


def test_the_buckets_of_engine_and_metrics_are_the_same():
    bounds = pytest.importorskip("predawn.kernels.engine.steps")

    assert (bounds.SECONDS, bounds.CHOICES) == (KERN, CNT)
