"""The parts of the benchmark measure what they say."""

from tests.benchmarks.instruments import chunks, requests, scrape


async def test_a_long_stream_makes_no_more_calls_than_a_short_one():
    short, long = await chunks.calls(5), await chunks.calls(50)

    assert short > 50
    assert long <= short + 5


async def test_a_function_that_is_called_per_chunk_would_be_seen(monkeypatch):
    from predawn.proxy.stream_meter import StreamMeter

    monkeypatch.setattr(chunks, "INSTRUMENTS", (*chunks.INSTRUMENTS, "relay.py"))
    assert StreamMeter.saw.__code__.co_filename.endswith("stream_meter.py")

    assert await chunks.calls(50) > await chunks.calls(5) + 40


def test_the_exchange_of_the_benchmark_becomes_four_spans():
    from predawn.plugins.traces.context import Trace
    from predawn.plugins.traces.spans import spans_of

    one = requests.exchange()
    spans = list(spans_of(one, Trace(1, None, None, is_kept=True), {}, ended_s=1.0))

    assert [span.name for span in spans] == ["POST /v1/chat/completions", "before", "chat qwen3", "after"]


def test_the_scraped_page_has_the_histograms_it_should_have():
    metrics = scrape.filled(60)

    assert scrape.histograms(metrics) >= 60
