from prometheus_client import CollectorRegistry

from predawn.proxy.live.totals import HISTOGRAMS, SUMS, Totals
from predawn.proxy.metrics import Metrics, families


def test_every_metric_that_is_shown_exists() -> None:
    names = {family.name for family in families(Metrics(CollectorRegistry()))}

    assert {*SUMS.values(), *HISTOGRAMS.values()} <= names


def test_sums_go_over_all_labels() -> None:
    metrics = Metrics(CollectorRegistry())
    for code, count in (("200", 3), ("404", 2), ("502", 1), ("other", 1)):
        metrics.requests.of("chat", "m", "u", code, "true").inc(count)
    metrics.tokens.of("m", "u", "output", "serve").inc(5)
    metrics.tokens.of("other", "u", "output", "serve").inc(7)
    metrics.request_duration.of("chat", "m", "u", "true").observe(0.5)
    metrics.request_duration.of("chat", "n", "u", "false").observe(0.5)

    shown = Totals(metrics).read()

    assert shown["requests"] == {"ok": 3, "client": 2, "server": 2}
    assert shown["tokens"] == {"serve.output": 12}
    assert sum(shown["histograms"]["duration"]["counts"]) == 2
