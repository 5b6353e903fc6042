"""What sampling counts."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from predawn.plugins.sampling.meters import SamplingMeters
from predawn.plugins.sampling.result import SamplingResult
from predawn.proxy.metrics import Metrics


def counted(*results: tuple[SamplingResult, dict[str, int], int, int]) -> str:
    metrics = Metrics(CollectorRegistry())
    meters = SamplingMeters(metrics)
    for result, outcomes, cancelled, allowed in results:
        meters.ended(result, outcomes, cancelled, allowed)
    return generate_latest(metrics.registry).decode()


def test_every_meter_begins_at_nothing() -> None:
    page = counted()

    assert 'predawn_samples_total{outcome="cancelled",strategy="vote"} 0' in page
    assert 'predawn_early_stops_total{reason="settled",strategy="waves"} 0' in page
    assert 'predawn_samples_drawn_count{strategy="hedge"} 0' in page


def test_an_early_stop_is_counted_with_what_it_saved() -> None:
    result = SamplingResult("vote", 4, 0.75, "settled", 90, 1)
    page = counted((result, {"selected": 1, "discarded": 2, "cancelled": 1, "failed": 0}, 17, 8))

    assert 'predawn_samples_total{outcome="discarded",strategy="vote"} 2' in page
    assert 'predawn_early_stops_total{reason="settled",strategy="vote"} 1' in page
    assert 'predawn_sample_tokens_cancelled_total{strategy="vote"} 17' in page
    assert 'predawn_sample_agreement_ratio_count{strategy="vote"} 1' in page


def test_what_used_all_it_had_did_not_stop_early() -> None:
    result = SamplingResult("vote", 8, None, "exhausted", 90, 1)
    page = counted((result, {"selected": 1, "discarded": 7}, 0, 8))

    assert 'reason="settled",strategy="vote"} 1' not in page
    assert 'predawn_sample_agreement_ratio_count{strategy="vote"} 0' in page


def test_a_request_that_was_given_up_is_counted_too() -> None:
    result = SamplingResult("vote", 3, None, "abandoned", 10, None)
    page = counted((result, {"cancelled": 3}, 10, 8))

    assert 'predawn_samples_total{outcome="cancelled",strategy="vote"} 3' in page
