"""A client that goes away frees the model at once."""

import openai
import pytest
from tests.real.requests_made import MODEL, chat

pytestmark = pytest.mark.real
# Left alone this would go on for ten seconds.
ENDLESS = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Count upwards from one."}],
    "max_tokens": 900,
    "logit_bias": {"2": -100},  # the token that ends an answer
    "temperature": 0,
}


def test_closing_a_stream_stops_the_model(accounted, busy_slots, eventually, ledger_of):
    stream = accounted.chat.completions.with_raw_response.create(**ENDLESS, stream=True)
    pieces = iter(stream.parse())
    for _ in range(4):
        next(pieces)
    was_busy = busy_slots()
    stream.http_response.close()
    eventually(lambda: busy_slots() == 0, seconds=3)
    record = ledger_of(stream.headers["x-request-id"])

    assert was_busy == 1
    assert record["outcome"] == "client_closed"
    assert 0 < record["ledger"]["output"] < 200
    assert record["ledger"]["estimated"]


def test_closing_a_stream_lets_others_go_on(accounted, busy_slots, eventually):
    closed = accounted.chat.completions.create(**ENDLESS, stream=True)
    kept = accounted.chat.completions.create(**chat(max_tokens=24), stream=True)
    next(iter(closed))
    next(iter(kept))
    closed.close()
    rest = list(kept)

    assert rest[-1].choices[0].finish_reason in {"stop", "length"}
    eventually(lambda: busy_slots() == 0, seconds=3)


def test_a_client_that_loses_patience_is_on_record_at_once(accounted, busy_slots, eventually, ledger_of):
    """This server finishes a whole answer even if nobody waits for it; Predawn does not wait with it."""
    impatient = accounted.with_options(timeout=0.5)
    with pytest.raises(openai.APITimeoutError):
        impatient.chat.completions.create(**{**ENDLESS, "max_tokens": 300}, extra_headers={"x-request-id": "impatient"})
    record = ledger_of("impatient")
    still_writing = busy_slots()
    eventually(lambda: busy_slots() == 0, seconds=30)

    assert (record["outcome"], record["total_s"] < 1.5) == ("client_closed", True)
    assert still_writing == 1
