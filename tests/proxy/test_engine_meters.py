from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from predawn.proxy.metrics import Metrics

INFO = SimpleNamespace(model="tiny", device="cpu", dtype="float32", execution="packed")


def load(**over):
    told = {"running": 1, "waiting": 2, "pages_used": 3, "pages": 64, "prefilled": 10, "decoded": 5}
    return SimpleNamespace(**{**told, "lookup_accepted": 0, **over})


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
