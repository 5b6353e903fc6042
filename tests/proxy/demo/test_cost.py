from predawn.proxy.demo import cost
from predawn.proxy.demo.asking import Answered

EXPOSITION = """\
# HELP predawn_requests_total Requests.
# TYPE predawn_requests_total counter
predawn_requests_total{code="200",model="smollm2"} 1.0
predawn_overhead_seconds_sum{route="chat",stream="true"} 0.00042
predawn_overhead_seconds_sum{route="raw",stream="false"} 0.0
predawn_event_loop_lag_seconds_sum 3.0
"""


def test_samples_are_read_with_their_labels():
    samples = cost.samples_of(EXPOSITION)

    assert samples['predawn_overhead_seconds_sum{route="chat",stream="true"}'] == 0.00042
    assert len(samples) == 4


def test_what_the_proxy_added_is_its_own_metric():
    assert cost.overhead_line(cost.samples_of(EXPOSITION), 2) == "  added by Predawn itself: 0.21 ms a request"
    assert cost.overhead_line({}, 0).endswith("unknown")


def test_each_answer_is_a_row_by_phase():
    thought = Answered("thinking", first_s=0.02, content_s=0.32, total_s=0.35)
    thought.prompt_tokens, thought.output_tokens, thought.reasoning_tokens = 31, 42, 40
    direct = Answered("at once", first_s=0.01, content_s=0.01, total_s=12.5)
    direct.prompt_tokens, direct.output_tokens = 31, 1

    assert cost.table_lines([thought, direct]) == [
        "                        prompt            thinking             answer   in all",
        "  thinking   31 tokens   20 ms   40 tokens  300 ms   2 tokens   30 ms   350 ms",
        "  at once    31 tokens   10 ms                   -    1 token  12.5 s   12.5 s",
    ]


def test_what_was_not_told_is_not_made_up():
    silent = Answered("silent", total_s=0.5)
    cut = Answered("cut", first_s=0.1, total_s=0.5, output_tokens=4, reasoning_tokens=4)

    assert cost.table_lines([silent])[1].split() == ["silent", "?", "tokens", "-", "-", "500", "ms"]
    assert cost.table_lines([cut])[1].split()[3:] == ["100", "ms", "4", "tokens", "400", "ms", "-", "500", "ms"]


def test_times_are_as_exact_as_they_are_short():
    assert [cost.time_of(seconds) for seconds in (0.00123, 0.0456, 3.2, 61.5)] == [
        "1.23 ms",
        "46 ms",
        "3200 ms",
        "61.5 s",
    ]
