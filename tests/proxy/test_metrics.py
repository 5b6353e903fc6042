"""Metrics: declared once, bound beforehand, present at 0, and bounded whatever clients send."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from predawn.proxy import declared as module
from predawn.proxy.breaker import STATE_VALUES
from predawn.proxy.declared import FAST, ITL, LAT, TTFT
from predawn.proxy.exposition import render
from predawn.proxy.hookspecs import Spec
from predawn.proxy.meters import Counter, Family, Histogram
from predawn.proxy.metrics import Metrics, families, new_registry, watch_event_loop
from predawn.proxy.settings import RouteSetting, Settings

SETTINGS = Settings.model_validate(
    {
        "upstreams": [
            {"name": "vllm", "base_url": "http://h/v1", "routes": ["chat", "embeddings", "messages"]},
            {"name": "spare", "base_url": "http://h/v1", "routes": ["chat"]},
        ],
        "models": [{"name": "qwen", "upstream": "vllm"}, {"name": "*", "upstream": "spare"}],
        "plugins": ["record", "cache"],
    }
)


@pytest.fixture
def metrics() -> Metrics:
    made = Metrics(CollectorRegistry())
    made.prepare(SETTINGS)
    return made


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


PLACE = {"route": "chat", "model": "qwen", "upstream": "vllm"}


def test_a_finished_request_is_counted_in_every_metric_of_traffic(metrics: Metrics) -> None:
    metrics.traffic("chat", "qwen", "vllm", stream=True).observe(
        code=200,
        total_s=1.5,
        overhead_s=0.0004,
        ttft_s=0.03,
        mean_gap_s=0.02,
        max_gap_s=0.3,
        input_tokens=10,
        output_tokens=20,
        cached_tokens=4,
        reasoning_tokens=5,
    )
    metrics.tokens_beside("vllm", "qwen", "discarded", 30, 7)
    metrics.tokens_beside("vllm", "qwen", "verify", 0, 3)

    expected = {
        ("predawn_requests_total", "code=200 stream=true"): 1,
        ("predawn_request_duration_seconds_sum", "stream=true"): 1.5,
        ("predawn_request_duration_seconds_bucket", "stream=true le=1.28"): 0,
        ("predawn_request_duration_seconds_bucket", "stream=true le=2.56"): 1,
        ("predawn_time_to_first_token_seconds_count", ""): 1,
        ("predawn_inter_token_latency_seconds_sum", ""): 0.02,
        ("predawn_max_token_gap_seconds_bucket", "le=0.3"): 1,
        ("predawn_max_token_gap_seconds_bucket", "le=0.2"): 0,
    }
    for (name, more), count in expected.items():
        labels = PLACE | dict(item.split("=") for item in more.split())
        assert value(metrics, name, **labels) == count, name
    tokens = {("input", "serve"): 10, ("output", "serve"): 20, ("cached_input", "serve"): 4, ("reasoning", "serve"): 5}
    beside = {("input", "discarded"): 30, ("output", "discarded"): 7, ("input", "verify"): 0, ("output", "verify"): 3}
    for (kind, phase), count in {**tokens, **beside}.items():
        labels = {"model": "qwen", "upstream": "vllm", "type": kind, "phase": phase}
        assert value(metrics, "predawn_tokens_total", **labels) == count
    assert value(metrics, "predawn_overhead_seconds_sum", route="chat", stream="true") == 0.0004


def test_a_request_that_does_not_stream_has_no_gaps(metrics: Metrics) -> None:
    metrics.traffic("chat", "qwen", "vllm", stream=False).observe(code=429, total_s=0.1, overhead_s=-0.01)

    assert value(metrics, "predawn_requests_total", **PLACE, code="429", stream="false") == 1
    assert value(metrics, "predawn_time_to_first_token_seconds_count", **PLACE) == 0
    assert value(metrics, "predawn_overhead_seconds_sum", route="chat", stream="false") == 0


def test_panels_show_zero_before_the_first_request(metrics: Metrics) -> None:
    assert value(metrics, "predawn_requests_total", **PLACE, code="200", stream="true") == 0
    assert value(metrics, "predawn_requests_in_flight", route="messages") == 0
    assert value(metrics, "predawn_upstream_errors_total", upstream="spare", reason="timeout_ttft") == 0
    assert value(metrics, "predawn_upstream_retries_total", upstream="vllm") == 0
    assert value(metrics, "predawn_upstream_breaker_state", upstream="vllm") == 0
    assert value(metrics, "predawn_config_reloads_total", outcome="failed") == 0
    assert value(metrics, "predawn_upstream_duration_seconds_count", upstream="vllm", model="qwen", outcome="ok") == 0
    assert value(metrics, "predawn_event_loop_lag_seconds_count") == 0


def series(metrics: Metrics) -> int:
    return sum(len(family.children) for family in families(metrics))


def test_ten_thousand_hostile_names_make_one_series_each(metrics: Metrics) -> None:
    metrics.traffic("chat", "first", "vllm", stream=True).observe(code=404, total_s=0.1, overhead_s=0.1)
    metrics.upstream_call("vllm", "first", "ok", 0.1)
    before = series(metrics)

    for number in range(10_000):
        metrics.traffic("chat", f"evil-{number}", "vllm", stream=True).observe(code=404, total_s=0.1, overhead_s=0.1)
        metrics.upstream_call("vllm", f"evil-{number}", "ok", 0.1)

    labels = {"route": "chat", "model": "other", "upstream": "vllm", "code": "404", "stream": "true"}
    assert series(metrics) == before
    assert value(metrics, "predawn_requests_total", **labels) == 10_001


def test_ten_thousand_tenants_are_of_one_class(metrics: Metrics) -> None:
    before = series(metrics)
    for number in range(10_000):
        metrics.tenant(f"tenant-{number}").observe(200, 0.1, 0.05, 3, 4)

    assert series(metrics) == before
    assert value(metrics, "predawn_tenant_requests_total", tenant_class="default", code="200") == 10_000
    assert value(metrics, "predawn_tenant_tokens_total", tenant_class="default", type="output") == 40_000


def test_a_tenant_counts_in_the_class_of_the_settings(metrics: Metrics) -> None:
    classes = {"gold": ["acme", "umbrella"], "free": ["bob"]}
    metrics.prepare(Settings.model_validate({**SETTINGS.model_dump(), "access": {"tenant_classes": classes}}))
    for tenant in ("acme", "umbrella", "bob", "stranger"):
        metrics.tenant(tenant).observe(200, 0.1)
    metrics.refused("chat", 401, 0.001)

    counts = {
        name: value(metrics, "predawn_tenant_request_duration_seconds_count", tenant_class=name)
        for name in ("gold", "free", "default", "none")
    }
    assert counts == {"gold": 2, "free": 1, "default": 1, "none": 1}
    assert value(metrics, "predawn_tenant_requests_total", tenant_class="none", code="401") == 1
    assert value(metrics, "predawn_tenant_requests_total", tenant_class="gold", code="502") == 0


@pytest.mark.parametrize(
    "classes",
    [
        {"default": ["a"]},
        {"Gold": ["a"]},
        {"none": []},
        {"a": ["x"], "b": ["x"]},
        {f"c{number}": [] for number in range(9)},
    ],
)
def test_classes_of_tenants_are_few_and_clear(classes: dict[str, list[str]]) -> None:
    with pytest.raises(ValueError, match="tenant_classes"):
        Settings.model_validate({"access": {"tenant_classes": classes}})


def test_seconds_are_counted_by_when_they_were_spent(metrics: Metrics) -> None:
    metrics.hook("record", "on_done").took(0.25)
    metrics.hook("record", "on_request").took(9)
    metrics.refused("chat", 401, 0.5)

    spent = {
        when: value(metrics, "predawn_phase_seconds_total", phase=when)
        for when in ("before", "during", "alongside", "after")
    }
    assert spent == {"before": 0, "during": 0.5, "alongside": 0, "after": 0.25}


def test_hostile_statuses_make_one_series(metrics: Metrics) -> None:
    meters = metrics.traffic("chat", "qwen", "vllm", stream=False)
    for code in range(100, 1000):
        meters.observe(code=code, total_s=0, overhead_s=0)

    codes = {values[3] for values in metrics.requests.children}
    assert len(codes) <= 70
    assert "other" in codes


def test_the_star_counts_as_other(metrics: Metrics) -> None:
    assert metrics.traffic("chat", "*", "spare", stream=True) is metrics.traffic("chat", "gpt-9", "spare", stream=True)
    assert {values[1] for values in metrics.requests.children} == {"qwen", "other"}


def test_a_request_without_an_upstream_says_none(metrics: Metrics) -> None:
    metrics.traffic("chat", "qwen", "", stream=False).observe(code=401, total_s=0, overhead_s=0)
    metrics.traffic("chat", "qwen", "made-up", stream=False).observe(code=200, total_s=0, overhead_s=0)

    assert {values[2] for values in metrics.requests.children} == {"vllm", "spare", "none", "other"}


def test_one_model_on_one_upstream_keeps_the_number_of_histograms_small() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.prepare(
        Settings.model_validate(
            {
                "upstreams": [{"name": "u", "base_url": "http://h/v1", "routes": list(get_args(RouteSetting))}],
                "models": [{"name": "m", "upstream": "u"}],
                "plugins": ["a", "b", "c"],
            }
        )
    )
    for plugin in "abc":
        for hook in module.HOOKS:
            metrics.hook(plugin, hook)

    assert sum(len(family.children) for family in families(metrics) if family.kind == "histogram") <= 100


def test_preparing_again_after_a_reload_keeps_counts_and_names_the_new_settings(metrics: Metrics) -> None:
    metrics.traffic("chat", "qwen", "vllm", stream=True).observe(code=200, total_s=1, overhead_s=0)
    changed = SETTINGS.model_copy(update={"plugins": SETTINGS.plugins[:1]})
    old_digest = next(iter(metrics.config_info.children))

    metrics.prepare(changed)
    metrics.traffic("chat", "qwen", "vllm", stream=True).observe(code=200, total_s=1, overhead_s=0)

    assert value(metrics, "predawn_requests_total", **PLACE, code="200", stream="true") == 2
    assert list(metrics.plugin_info.children) == [("record", "0")]
    assert list(metrics.config_info.children) != [old_digest]


def test_hooks_upstreams_and_reloads_are_counted(metrics: Metrics) -> None:
    hook = metrics.hook("record", "on_done")
    hook.took(0.002)
    hook.failed("timeout")
    hook.failed("unheard of")
    metrics.upstream_error("vllm", "connect")
    metrics.upstream_retry("vllm")
    metrics.upstream_fallback("spare")
    metrics.breaker_state("vllm").set(STATE_VALUES["open"])
    metrics.reloaded(ok=False)
    metrics.in_flight("chat").inc()
    metrics.upstream_call("vllm", "qwen", "strange", 0.5)

    where = {"plugin": "record", "hook": "on_done"}
    assert value(metrics, "predawn_hook_duration_seconds_sum", **where) == 0.002
    assert value(metrics, "predawn_hook_errors_total", **where, reason="timeout") == 1
    assert value(metrics, "predawn_hook_errors_total", **where, reason="other") == 1
    assert value(metrics, "predawn_hook_errors_total", **where, reason="dropped") == 0
    assert value(metrics, "predawn_upstream_errors_total", upstream="vllm", reason="connect") == 1
    assert value(metrics, "predawn_upstream_retries_total", upstream="vllm") == 1
    assert value(metrics, "predawn_upstream_fallbacks_total", upstream="spare") == 1
    assert value(metrics, "predawn_upstream_breaker_state", upstream="vllm") == 2
    assert value(metrics, "predawn_config_reloads_total", outcome="failed") == 1
    assert value(metrics, "predawn_requests_in_flight", route="chat") == 1
    assert (
        value(metrics, "predawn_upstream_duration_seconds_sum", upstream="vllm", model="qwen", outcome="other") == 0.5
    )


def test_the_hooks_that_are_counted_are_those_that_exist() -> None:
    timed = [name for name in vars(Spec) if not name.startswith(("_", "register_")) and name != "lifespan"]

    assert list(module.HOOKS) == timed


async def test_the_lag_of_the_loop_is_what_a_sleep_takes_too_long(metrics: Metrics) -> None:
    class Stopped(BaseException):
        pass

    class LateClock:
        """Each sleep takes a tenth of a second too long; the third ends the test."""

        time_s = 0.0
        sleeps = 0

        def now(self) -> float:
            return self.time_s

        def monotonic(self) -> float:
            return self.time_s

        async def sleep(self, seconds: float) -> None:
            self.sleeps += 1
            if self.sleeps == 3:
                raise Stopped
            self.time_s += seconds + 0.1

    with pytest.raises(Stopped):
        await watch_event_loop(metrics, LateClock(), every_s=0.5)

    assert value(metrics, "predawn_event_loop_lag_seconds_count") == 2
    assert value(metrics, "predawn_event_loop_lag_seconds_sum") == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain"),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text"),
        ("nonsense", "text/plain"),
    ],
)
def test_the_format_is_what_the_scraper_accepts(metrics: Metrics, accept: str, kind: str) -> None:
    body, content_type = render(metrics, accept)
    parse = text_string_to_metric_families if kind.endswith("openmetrics-text") else text_families
    names = {family.name for family in parse(body.decode())}

    assert content_type.startswith(kind)
    assert {family.name.removesuffix("_total") for family in families(metrics)} <= names | {
        name.removesuffix("_total") for name in names
    }


def test_a_name_can_be_declared_only_once(metrics: Metrics) -> None:
    with pytest.raises(ValueError, match="Duplicated"):
        Family("predawn_requests_total", "again", (), Counter, metrics.registry)


def test_the_wrong_number_of_labels_is_an_error(metrics: Metrics) -> None:
    with pytest.raises(ValueError, match="takes 2 label values, not 1"):
        metrics.overhead.of("chat")


def test_the_process_itself_is_measured() -> None:
    metrics = Metrics(new_registry())

    assert b"process_resident_memory_bytes" in render(metrics)[0]


@given(st.lists(st.floats(min_value=0, max_value=2000)), st.sampled_from([LAT, TTFT, ITL, FAST]))
def test_a_histogram_counts_as_its_definition_says(values: list[float], bounds: tuple[float, ...]) -> None:
    histogram = Histogram(bounds)
    for one in values:
        histogram.observe(one)

    by_definition = [sum(one <= bound for one in values) for bound in bounds]
    assert [sum(histogram.counts[: index + 1]) for index in range(len(bounds))] == by_definition
    assert sum(histogram.counts) == len(values)


def test_boundaries_are_those_of_the_conventions() -> None:
    assert [float(f"{bound:.2f}") for bound in LAT] == list(LAT)
    assert (LAT[0], LAT[-1], TTFT[0], TTFT[-1]) == (0.01, 655.36, 0.005, 81.92)
