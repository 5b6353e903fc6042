from predawn.proxy.demo import cost

EXPOSITION = """\
# HELP predawn_requests_total Requests.
# TYPE predawn_requests_total counter
predawn_requests_total{code="200",model="smollm2"} 1.0
predawn_requests_total{code="500",model="smollm2"} 0.0
predawn_overhead_seconds_sum{route="chat",stream="true"} 0.00042
predawn_overhead_seconds_sum{route="raw",stream="false"} 0.0
predawn_request_duration_seconds_sum{route="chat"} 1.25e-05
predawn_event_loop_lag_seconds_sum 3.0
"""


def test_samples_are_read_with_their_labels():
    samples = cost.samples_of(EXPOSITION)

    assert samples['predawn_request_duration_seconds_sum{route="chat"}'] == 1.25e-05
    assert len(samples) == 6


def test_only_what_the_request_moved_is_shown_in_the_order_of_its_way():
    assert cost.metric_lines(cost.samples_of(EXPOSITION)) == [
        '  predawn_requests_total{code="200",model="smollm2"} 1',
        '  predawn_request_duration_seconds_sum{route="chat"} 0.000013',
        '  predawn_overhead_seconds_sum{route="chat",stream="true"} 0.00042',
    ]


def test_what_the_proxy_added_is_its_own_metric():
    assert cost.overhead_line(cost.samples_of(EXPOSITION)).split() == ["added", "by", "Predawn", "0.42", "ms"]
    assert cost.overhead_line({}).split()[-1] == "unknown"


def test_a_ledger_becomes_rows():
    ledger = {
        "prompt": 34, "cached_prompt": 3, "output": 16, "reasoning": 0, "estimated": False,
        "first_token_s": 0.1824, "total_s": 0.52, "upstream_s": 0.519, "plugin_s": 0.0000412,
    }  # fmt: skip

    assert [" ".join(line.split()) for line in cost.ledger_lines(ledger)] == [
        "prompt tokens 34 3 of them cached",
        "output tokens 16",
        "first token 182 ms",
        "total 520 ms 519 ms of it spent in the model",
        "plugins 0.04 ms",
    ]


def test_a_ledger_says_what_it_does_not_know():
    lines = cost.ledger_lines({"estimated": True, "output": 7})

    assert lines[0].split() == ["prompt", "tokens", "unknown", "unknown", "of", "them", "cached"]
    assert "the upstream reported none" in lines[1]
