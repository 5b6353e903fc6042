"""Queries name what exists, and are narrowed down by the labels that a metric has."""

from __future__ import annotations

import pytest
from grafana.checking import bare
from grafana.promql import Reader, or_else, or_zero, share

READ = Reader()


def test_a_metric_is_narrowed_down_by_the_labels_it_has() -> None:
    assert READ.pick("upstream_retries_total") == ('predawn_upstream_retries_total{job=~"$job",upstream=~"$upstream"}')


def test_a_matcher_takes_the_place_of_a_variable() -> None:
    assert READ.pick("upstream_retries_total", 'upstream="a"') == (
        'predawn_upstream_retries_total{job=~"$job",upstream="a"}'
    )


def test_without_variables_nothing_is_narrowed_down() -> None:
    reader = Reader(window="5m", filters={})

    assert reader.rate("upstream_retries_total") == "sum(rate(predawn_upstream_retries_total[5m]))"


def test_a_quantile_is_over_buckets_and_groups() -> None:
    reader = Reader(window="5m", filters={})

    assert reader.quantile(0.9, "overhead_seconds", by=("route",)) == (
        "histogram_quantile(0.9, sum by (route, le) (rate(predawn_overhead_seconds_bucket[5m])))"
    )


@pytest.mark.parametrize("wrong", ["requests", "predawn_nothing_total", ""])
def test_a_metric_that_is_not_there_is_an_error(wrong) -> None:
    with pytest.raises(LookupError, match="there is no metric"):
        READ.pick(wrong)


def test_a_label_that_a_metric_has_not_is_an_error() -> None:
    with pytest.raises(LookupError, match="requests_total has no label 'status'"):
        READ.pick("requests_total", 'status="500"')


def test_a_matcher_must_be_one() -> None:
    with pytest.raises(ValueError, match="is no matcher"):
        READ.pick("requests_total", "code=500")


def test_nothing_is_divided_by_zero() -> None:
    assert share("a", "b") == "a / (b > 0)"


@pytest.mark.parametrize(
    "filled",
    [or_zero("a or b"), or_zero("a or b", "model", "type"), or_else("a or b", 1), or_else("a or b", 0, le="+Inf")],
)
def test_a_query_can_be_had_without_its_zero(filled) -> None:
    assert filled.startswith("(a or b) or on() ")
    assert bare(filled) == "a or b"


def test_a_query_that_has_no_zero_stays_as_it_is() -> None:
    assert bare("(a and on (job) b)") == "(a and on (job) b)"
